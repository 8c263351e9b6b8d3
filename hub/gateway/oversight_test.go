package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// right is what one person may, for as long as they may.
type right struct {
	credentials string
	taken       *atomic.Bool
	asked       *atomic.Int64
}

func (r right) Credentials() string { return r.credentials }

func (r right) Allowed(context.Context) bool {
	r.asked.Add(1)
	return !r.taken.Load()
}

func newRight(name string) right { return right{name, &atomic.Bool{}, &atomic.Int64{}} }

// TestARightThatIsTakenAwayEndsStreamsInTime: in less than 5 s, less the 2 s for
// which a token may count as good without being looked at.
func TestARightThatIsTakenAwayEndsStreamsInTime(t *testing.T) {
	const bound = 3 * time.Second
	for wait := range 20 {
		synctest.Test(t, func(t *testing.T) {
			anns, bobs := newRight("ann"), newRight("bob")
			rights := map[string]right{"ann": anns, "bob": bobs}
			g := &Routes{config: Config{Logger: slog.New(slog.DiscardHandler), Again: func(ctx context.Context) Judge { return rights[ctx.Value(whose{}).(string)] }},
				streams: newStreams(), overseer: &overseen{open: map[*overseenStream]struct{}{}}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- g.Run(ctx) }()
			open := func(name string) (context.Context, func()) {
				r := httptest.NewRequest("GET", "/api/v1/pods?watch=1", nil)
				info := &request.RequestInfo{IsResourceRequest: true, Verb: "watch", Resource: "pods"}
				r = r.WithContext(request.WithRequestInfo(context.WithValue(r.Context(), whose{}, name), info))
				r, forget := g.overseen(r, read(r))
				return r.Context(), forget
			}
			first, forgetFirst := open("ann")
			second, forgetSecond := open("ann")
			other, forgetOther := open("bob")
			<-time.After(time.Duration(wait) * 137 * time.Millisecond)
			before := time.Now()
			anns.taken.Store(true)
			<-first.Done()
			<-second.Done()
			if took := time.Since(before); took > bound {
				t.Errorf("a stream goes on for %s, want at most %s", took, bound)
			}
			if other.Err() != nil {
				t.Error("another person's stream ended")
			}
			if asked := anns.asked.Load(); asked > int64(time.Since(before)/judgeInterval)+3 {
				t.Errorf("two streams of one person that are alike were judged %d times", asked)
			}
			forgetFirst()
			forgetSecond()
			forgetOther()
			cancel()
			<-done
		})
	}
}

type whose struct{}

func TestOpenStreamsEndWithTheRight(t *testing.T) {
	release := make(chan struct{})
	m := newMember(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo(w, r)
			return
		}
		_, _ = fmt.Fprintln(w, "event")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	anns := newRight("ann")
	m.routes.config.Again = func(context.Context) Judge { return anns }
	m.door.Close()
	m.door = chained(m, &record{}, func(authorizer.Attributes) bool { return true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.routes.Run(ctx) }()
	defer func() { cancel(); <-done }()

	conn, reader, response := m.upgrade("SPDY/3.1", "/clusters/north-1/api/v1/namespaces/n/pods/p/exec")
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("exec: %d", response.StatusCode)
	}
	watch, err := m.door.Client().Get(m.door.URL + "/clusters/north-1/api/v1/pods?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	events := bufio.NewReader(watch.Body)
	if line, err := events.ReadString('\n'); line != "event\n" {
		t.Fatal(line, err)
	}
	judged := anns.asked.Load()
	eventually(t, "the streams are judged again and go on", func() string {
		if anns.asked.Load() == judged {
			return "not judged"
		}
		return ""
	})
	_, _ = io.WriteString(conn, "ls\n")
	if line, err := reader.ReadString('\n'); line != "ls\n" {
		t.Fatalf("an exec that is allowed: %q, %v", line, err)
	}
	anns.taken.Store(true)
	if text, err := io.ReadAll(reader); err != nil || len(text) > 0 {
		t.Errorf("the exec ends with %q, %v; want its end", text, err)
	}
	if text, _ := io.ReadAll(events); len(text) > 0 {
		t.Errorf("the watch goes on with %q", text)
	}
}
