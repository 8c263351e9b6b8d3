package session_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// quiet is a member of a hub in which nobody is asked whether he lives.
func quiet(t *testing.T, change func(*session.Config)) (f *fleet, address string) {
	f = &fleet{t: t, ca: newPKI(t), leader: "a", changed: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.members = map[string]*member{"a": {name: "a", fleet: f, listener: listener, through: map[string]int{}, presences: map[string]int{}}}
	times := lease.LAN()
	times.Tick, times.TTL = time.Hour, 3*time.Hour
	config := session.Config{
		Name: "a", Center: "a", Listener: listener, TLS: f.ca.server("a"), Lease: times, Incarnation: func() uint64 { return 1 }, Leadership: f,
		Identify: identify, Admit: f.admit, Leaser: f.members["a"], Desired: f, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	server, err := session.New(config)
	if err != nil {
		t.Fatal(err)
	}
	f.members["a"].server = server
	f.run(server.Run)
	return f, listener.Addr().String()
}

// idle opens a tunnel without yamux's end.
func (f *fleet) idle(address, replica string, config *tls.Config) net.Conn {
	f.t.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintln(conn, replica); err != nil {
		f.t.Fatal(err)
	}
	if answer, err := bufio.NewReader(io.LimitReader(conn, 3)).ReadString('\n'); err != nil || answer != "OK\n" {
		f.t.Fatalf("%s: %q, %v", replica, answer, err)
	}
	return conn
}

// A thousand idle tunnels may take 80 kB each of the process that holds both their
// ends: the member's, and bare TLS connections.
func TestAThousandIdleTunnelsAreCheap(t *testing.T) {
	const agents, most = 1000, 80_000
	f, address := quiet(t, nil)
	config := f.ca.agent("north-1")
	config.NextProtos = []string{session.ProtocolTunnel}
	before := held()
	for i := range agents {
		f.idle(address, fmt.Sprintf("replica-%d", i), config)
	}
	each := (held() - before) / agents
	t.Logf("%d bytes for each", each)
	if each > most {
		t.Errorf("an idle tunnel takes %d bytes, want %d at most", each, most)
	}
}

// Of an idle agent a member has, beside what gRPC and yamux need, a goroutine for its
// conversation, one that reads its session, and one for its tunnel.
func TestAnIdleAgentHasThreeGoroutines(t *testing.T) {
	const agents, each, ours = 10, 3, "hub/session.(*Server)."
	f, address := quiet(t, nil)
	const member = 5 // Run and its parts
	eventually(t, "a member that runs", func() bool { return goroutines(ours) == member })
	for i := range agents {
		replica := fmt.Sprintf("replica-%d", i)
		stream, err := open(t, f, "north-1", replica)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Heartbeat{Heartbeat: &agentv1.Heartbeat{Seq: 1}}}); err != nil {
			t.Fatal(err)
		}
		for granted := false; !granted; {
			message, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			granted = message.GetGrant() != nil
		}
		config := f.ca.agent("north-1")
		config.NextProtos = []string{session.ProtocolTunnel}
		f.idle(address, replica, config)
	}
	// No fewer: that would be another way of counting.
	eventually(t, "three of each agent", func() bool { return goroutines(ours) == member+agents*each })
}

// goroutines counts those with such a function on their stack.
func goroutines(function string) (n int) {
	all := make([]byte, 4<<20)
	all = all[:runtime.Stack(all, true)]
	for one := range strings.SplitSeq(string(all), "\n\n") {
		stack, _, _ := strings.Cut(one, "created by ")
		if strings.Contains(stack, function) {
			n++
		}
	}
	return n
}

// held is what this process holds: objects and stacks.
func held() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
