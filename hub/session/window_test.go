package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/session"
)

// TestAStreamHasItsWholeWindowAndHoldsNobodyElse: of an answer that nobody reads the
// agent can send a window, as a long fat network needs; when the window is full
// another stream goes on; and when the client leaves the agent is told, so that neither end
// keeps what it has.
func TestAStreamHasItsWholeWindowAndHoldsNobodyElse(t *testing.T) {
	f, address := quiet(t, func(c *session.Config) { c.StreamLinger = 50 * time.Millisecond })
	server := f.members["a"].server
	config := f.ca.agent("north-1")
	config.NextProtos = []string{session.ProtocolTunnel}
	settings := yamux.DefaultConfig()
	settings.LogOutput, settings.Logger, settings.EnableKeepAlive = nil, log.New(io.Discard, "", 0), false
	agent, err := yamux.Server(f.idle(address, "r1", config), settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	dial := func() (hub, far net.Conn) {
		eventually(t, "a stream to the agent", func() bool { // the member takes the tunnel after it has said so
			var err error
			hub, err = server.Dial(context.Background(), "north-1")
			return err == nil
		})
		if far, err = agent.Accept(); err != nil {
			t.Fatal(err)
		}
		return hub, far
	}

	unread, flood := dial()
	eventually(t, "an agent may open no stream towards the member", func() bool {
		stream, err := agent.Open()
		if err == nil {
			_ = stream.Close()
		}
		return errors.Is(err, yamux.ErrRemoteGoAway)
	})
	var sent atomic.Int64
	ended := make(chan error, 1)
	go func() {
		for chunk := make([]byte, 64<<10); ; {
			n, err := flood.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	eventually(t, "a window on its way", func() bool { return sent.Load() == session.StreamWindow })

	other, echo := dial()
	go func() { _, _ = io.Copy(echo, echo) }()
	_ = other.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(other, "beside it\n")
	if said, err := bufio.NewReader(other).ReadString('\n'); err != nil || said != "beside it\n" {
		t.Errorf("beside a stream that is full another one says %q, %v", said, err)
	}

	_ = unread.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the agent still waits for a client that has left")
	}
	eventually(t, "one stream at the agent", func() bool { return agent.NumStreams() == 1 })
}

// TestWhatIsSentToAnAgentHasAWindowToo: of a body that the cluster does not read a window
// goes out.
func TestWhatIsSentToAnAgentHasAWindowToo(t *testing.T) {
	const piece = 64 << 10
	f := newFleet(t)
	release := make(chan struct{})
	api := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(api.Close)
	f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	conn, err := f.members["a"].server.Dial(context.Background(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: north-1\r\nContent-Length: %d\r\n\r\n", int64(1)<<40)
		for chunk := make([]byte, piece); ; {
			n, err := conn.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	// The last piece does not fit, for the request's head.
	defer func() {
		close(release)
		_ = conn.Close()
		<-ended
	}()
	eventually(t, "a window on its way", func() bool { return sent.Load() >= session.StreamWindow-piece })
}
