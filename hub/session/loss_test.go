package session_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	agentsession "tripod.dev/tripod/member-agent/session"
	"tripod.dev/tripod/member-agent/tunnel"
)

// beats asks the member for /echo again and again until stop, which returns how many
// requests there were and what failed.
func (f *fleet) beats(member string) (stop func() (int, []error)) {
	client := f.through(member, "north-1")
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var asked int
	var failed []error
	all.Go(func() {
		for ; ctx.Err() == nil; asked++ {
			response, err := client.Get("http://north-1/echo")
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
			if err == nil && response.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", response.Status)
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
	})
	return func() (int, []error) { cancel(); all.Wait(); return asked, failed }
}

// upgraded is a connection through the member that says back what it is told.
func (f *fleet) upgraded(member string) (say func(line string) error) {
	f.t.Helper()
	conn, err := f.members[member].server.Dial(context.Background(), "north-1")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "POST /exec HTTP/1.1\r\nHost: north-1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	reader := bufio.NewReader(conn)
	if response, err := http.ReadResponse(reader, nil); err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		f.t.Fatalf("%v, %v", response, err)
	}
	return func(line string) error {
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			return err
		}
		if said, err := reader.ReadString('\n'); err != nil || said != line+"\n" {
			return fmt.Errorf("it said %q: %w", said, err)
		}
		return nil
	}
}

func TestTheLossOfAMemberIsSeenOnlyByWhatWentThroughIt(t *testing.T) {
	f := newFleet(t)
	release := make(chan struct{})
	api := apiServer(t, release)
	sessions := f.join("north-1", "r1", nil).sessions
	tunnels := f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	eventually(t, "sessions with and tunnels to all", func() bool { return sessions.Connected() == 3 && tunnels.Connected() == 3 })
	if missing := append(sessions.Missing(), tunnels.Missing()...); len(missing) > 0 {
		t.Errorf("a whole agent lacks %q", missing)
	}

	watch, err := f.through("a", "north-1").Get("http://north-1/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Body.Close() }()
	lines := bufio.NewScanner(watch.Body)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatalf("got %q, %v", lines.Text(), lines.Err())
	}
	elsewhere, there := f.upgraded("b"), f.upgraded("c")
	requests := map[string]func() (int, []error){"a": f.beats("a"), "b": f.beats("b")}

	f.members["c"].stop()
	lost := []string{f.address("c")}
	eventually(t, "the agent reports what it lacks", func() bool {
		return slices.Equal(sessions.Missing(), lost) && slices.Equal(tunnels.Missing(), lost)
	})
	if sessions.Connected() != 2 || tunnels.Connected() != 2 {
		t.Errorf("%d sessions and %d tunnels without one of three members", sessions.Connected(), tunnels.Connected())
	}
	if err := there("through the member that is gone"); err == nil {
		t.Error("a connection through the member that is gone still answers")
	}
	if err := elsewhere("through another"); err != nil {
		t.Errorf("a connection through another member: %v", err)
	}

	f.restart("c")
	f.reachable("north-1")
	eventually(t, "the agent is whole again", func() bool { return len(sessions.Missing())+len(tunnels.Missing()) == 0 })
	for member, stop := range requests {
		if asked, failed := stop(); len(failed) > 0 || asked == 0 {
			t.Errorf("%d of %d requests through %s failed while c was away, first %v", len(failed), asked, member, failed[:min(1, len(failed))])
		}
	}
	if err := elsewhere("still the same"); err != nil {
		t.Errorf("a connection through another member, after the return: %v", err)
	}
	close(release)
	if !lines.Scan() || lines.Text() != "second" {
		t.Errorf("a watch through another member: %q, %v", lines.Text(), lines.Err())
	}
}

// A member that takes connections and says nothing, as one whose processor is taken
// away does, must not slow the agent's way to the others: here they come back while
// session and tunnel wait for it, and nobody gives up waiting.
func TestASilentMemberHoldsUpNoOther(t *testing.T) {
	f := newFleet(t)
	for _, member := range f.members {
		member.stop()
	}
	silent, err := net.Listen("tcp", f.address("c"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	api := apiServer(t, nil)
	sessions := f.join("north-1", "r1", func(c *agentsession.Config, _ *replica) { c.ConnectTimeout = time.Hour }).sessions
	tunnels := f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		func(c *tunnel.Config) { c.ConnectTimeout = time.Hour })
	for range 2 {
		conn, err := silent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	f.restart("a")
	f.restart("b")
	eventually(t, "a session with and a tunnel to the two others", func() bool { return sessions.Connected() == 2 && tunnels.Connected() == 2 })
	lacks := []string{f.address("c")}
	if missing := sessions.Missing(); !slices.Equal(missing, lacks) {
		t.Errorf("the agent lacks sessions with %q, want %q", missing, lacks)
	}
	if missing := tunnels.Missing(); !slices.Equal(missing, lacks) {
		t.Errorf("the agent lacks tunnels to %q, want %q", missing, lacks)
	}
}
