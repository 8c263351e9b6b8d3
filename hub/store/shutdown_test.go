package store

import (
	"context"
	"crypto/tls"
	"log/slog"
	"testing"
	"time"
)

// TestAMemberThatIsElectedWhileItStopsStops: Raft hears that it leads, and is shut
// down before the store has done anything about it.
func TestAMemberThatIsElectedWhileItStopsStops(t *testing.T) {
	s, err := New(Config{
		Name: "m0", DataDir: t.TempDir(), Bootstrap: true, RaftListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		Members: []Member{{Name: "m0", RaftAddress: "127.0.0.1:1", PeerAddress: "127.0.0.1:2"}},
		TLS:     &tls.Config{Certificates: []tls.Certificate{{}}}, // nobody is dialled or served
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.closeFiles(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.shutdownRaft(); err != nil {
		t.Fatal(err)
	}
	for range 64 { // which of two ready channels Raft takes is chance
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.leaders.elected(ctx)
		}()
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("it waits for an answer that never comes")
		}
	}
}
