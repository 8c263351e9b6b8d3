package session

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tripod.dev/tripod/test/authority"
)

func TestHandshakesThatWereBegunGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		if err := turns.take(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 4)
		wait := func(name string, begun bool) {
			go func() {
				if turns.take(t.Context(), begun) == nil {
					order <- name
				}
			}()
			synctest.Wait()
		}
		wait("first fresh", false)
		wait("second fresh", false)
		wait("first begun", true)
		wait("second begun", true)
		for _, want := range []string{"first begun", "second begun", "first fresh", "second fresh"} {
			turns.give()
			synctest.Wait()
			if got := <-order; got != want || len(order) != 0 {
				t.Fatalf("%s has the turn, want %s; %d more have one", got, want, len(order))
			}
		}
		turns.give()
		if turns.free != 1 {
			t.Errorf("%d turns in the end, want 1", turns.free)
		}
	})
}

func TestAHandshakeThatWaitsTooLongIsSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		if err := turns.take(t.Context(), false); err != nil { // for ever
			t.Fatal(err)
		}
		client, server := net.Pipe()
		defer func() { _, _ = client.Close(), server.Close() }()
		go func() { _, _ = client.Write([]byte("hello")) }()
		ctx, cancel := context.WithTimeout(t.Context(), handshakeTimeout)
		defer cancel()
		conn, began := &inTurn{Conn: server, turns: turns, ctx: ctx}, time.Now()
		_, err := conn.Read(make([]byte, 10))
		if !errors.Is(err, errBusy) || time.Since(began) != beginTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		conn.finish()
		turns.give()
		if turns.free != 1 || len(turns.fresh) != 0 {
			t.Errorf("%d turns and %d waiting in the end", turns.free, len(turns.fresh))
		}
	})
}

func TestAClientThatStopsInItsHandshakeHoldsNoTurn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := authority.New(t, "test")
	splitter := newSplitter(listener, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.Issue(t, "member", "members")}},
		nil, time.Second, slog.New(slog.DiscardHandler))
	splitter.turns = newTurns(1)
	splitter.route(ProtocolJoin, false, func(conn *tls.Conn) { _ = conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = splitter.run(ctx) }()
	defer func() { cancel(); <-done }()

	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), ServerName: "127.0.0.1", NextProtos: []string{ProtocolJoin}}
	for range 3 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		hello, client := net.Pipe()
		go func() { _ = tls.Client(client, config).HandshakeContext(ctx) }()
		buffer := make([]byte, 16<<10)
		n, err := hello.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			t.Fatal(err)
		}
		_ = hello.Close()
		// The member's answer is on its way: it has had its turn.
		if _, err := conn.Read(buffer[:1]); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("behind three clients that stopped: %v", err)
	}
	_ = conn.Close()
}
