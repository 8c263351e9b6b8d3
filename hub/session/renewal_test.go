package session_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// TestThePortOfTheAgentsRenewsItsCertificate: three lives of a certificate go by under
// one session, which goes on on its one connection; every new connection is shown the
// certificate of now.
func TestThePortOfTheAgentsRenewsItsCertificate(t *testing.T) {
	const life = time.Hour
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	who, err := identity.Open(t.Context(), identity.Config{
		Name: "a", DataDir: t.TempDir(), Advertise: "127.0.0.1", Bootstrap: true, MemberValidity: life, Now: now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed := make(chan struct{}, 10)
	who.OnRenewal(func() { renewed <- struct{}{} })

	f := newFleet(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := f.members["a"]
	server, err := session.New(session.Config{
		Name: "a", Center: "center-a", Listener: listener, TLS: who.ServerTLS(), Roots: who.Roots,
		PeerTLS: func(string) *tls.Config { return who.PeerTLS() }, Members: f.listed, Lease: times(),
		Incarnation: m.incarnation.Load, Leadership: f, Leaser: m, Admit: f.admit, Logger: f.log("port"),
		Identify: func(*x509.Certificate) (session.Identity, error) { return session.Identity{Cluster: "north"}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.run(server.Run)
	f.run(who.Run)

	var dials atomic.Int64
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(who.ClientTLS("localhost", "h2"))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stream, err := agentv1.NewSessionsClient(conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{Replica: "0"}}}); err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	granted := func() {
		t.Helper()
		seq++
		if err := stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Heartbeat{Heartbeat: &agentv1.Heartbeat{Seq: seq}}}); err != nil {
			t.Fatal(err)
		}
		for {
			message, err := stream.Recv()
			if err != nil {
				t.Fatalf("the session has ended: %v", err)
			}
			if message.GetGrant().GetSeq() == seq {
				return
			}
		}
	}
	granted()
	first := who.Certificate().Leaf
	for range 3 {
		ahead.Add(int64(life * 3 / 4))
		for waiting := true; waiting; {
			select {
			case <-renewed:
				waiting = false
			case <-time.After(times().TTL / 4): // the session lives by its heartbeats
				granted()
			}
		}
		granted()
		fresh, err := (&tls.Dialer{Config: who.ClientTLS("localhost", "h2")}).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		shown := fresh.(*tls.Conn).ConnectionState().PeerCertificates[0]
		_ = fresh.Close()
		if !shown.Equal(who.Certificate().Leaf) || shown.Equal(first) {
			t.Fatalf("a new connection is shown the certificate that ends %s, the present one ends %s", shown.NotAfter, who.Certificate().Leaf.NotAfter)
		}
	}
	if !now().After(first.NotAfter) || dials.Load() != 1 {
		t.Errorf("the first certificate ends %s, now is %s, and the session has dialled %d times", first.NotAfter, now(), dials.Load())
	}
}
