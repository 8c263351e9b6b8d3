package session_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/session"
)

// A thousand idle tunnels may take 80 kB each of the process that holds both their
// ends: the member's, and bare TLS connections.
func TestAThousandIdleTunnelsAreCheap(t *testing.T) {
	const agents, most = 1000, 80_000
	f := &fleet{t: t, ca: newPKI(t), leader: "a", changed: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	quiet := lease.LAN()
	quiet.Tick, quiet.TTL = time.Hour, 3*time.Hour // nobody is asked whether he lives
	server, err := session.New(session.Config{
		Name: "a", Center: "a", Listener: listener, TLS: f.ca.server("a"), Lease: quiet, Incarnation: func() uint64 { return 1 }, Leadership: f,
		Identify: identify, Admit: f.admit, Leaser: &member{name: "a", fleet: f, through: map[string]int{}, presences: map[string]int{}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.run(server.Run)
	config := f.ca.agent("north-1")
	config.NextProtos = []string{session.ProtocolTunnel}
	before := held()
	for i := range agents {
		conn, err := tls.Dial("tcp", listener.Addr().String(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := fmt.Fprintf(conn, "replica-%d\n", i); err != nil {
			t.Fatal(err)
		}
		if answer, err := bufio.NewReader(io.LimitReader(conn, 3)).ReadString('\n'); err != nil || answer != "OK\n" {
			t.Fatalf("agent %d: %q, %v", i, answer, err)
		}
	}
	each := (held() - before) / agents
	t.Logf("%d bytes for each", each)
	if each > most {
		t.Errorf("an idle tunnel takes %d bytes, want %d at most", each, most)
	}
}

// held is what this process holds: objects and stacks.
func held() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
