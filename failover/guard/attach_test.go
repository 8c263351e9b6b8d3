package guard

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	agentv1 "tripod.dev/tripod/proto/agent/v1"

	"tripod.dev/tripod/test/authority"
)

// hub is a hub's CA whose credentials are files.
type hub struct {
	*authority.Authority
	t *testing.T
}

func newHub(t *testing.T) *hub { return &hub{authority.New(t, "hub"), t} }

// guard writes a guard's files, as its Secret is mounted.
func (h *hub) guard(id Identity, hubs string) Credentials {
	h.t.Helper()
	dir := h.t.TempDir()
	h.Write(h.t, dir, h.Issue(h.t, id.CommonName(), GuardsOrganization))
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file(HubsFile), []byte(hubs), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return Credentials{Certificate: file("tls.crt"), Key: file("tls.key"), Authority: file("ca.crt"), Hubs: file(HubsFile)}
}

// hubMember proves the primary role to whoever asks.
type hubMember struct {
	agentv1.UnimplementedGuardsServer
}

func (hubMember) Attach(stream agentv1.Guards_AttachServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetAsk() == nil {
			continue
		}
		proof := proofOf(asPrimary, 1, 1, 5*time.Second)
		proof.Seq = m.GetAsk().GetSeq()
		if err := stream.Send(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Proof{Proof: proof}}); err != nil {
			return err
		}
	}
}

func (h *hub) serve() (address string) {
	h.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{h.Issue(h.t, memberPrefix+"hub-a", membersOrganization)}})))
	agentv1.RegisterGuardsServer(server, hubMember{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	h.t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

// A guard whose agents are all away finds the hub's members in its credentials, and
// has its proof from them (safety.md section 4).
func TestAGuardThatNoAgentAnswersAsksTheHub(t *testing.T) {
	h := newHub(t)
	g := newGuard(t, &database{})
	g.cfg.Tick = 20 * time.Millisecond
	g.cfg.Credentials = h.guard(g.cfg.Identity, "127.0.0.1:1\n"+h.serve()+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- caller{g}.attach(ctx) }()
	defer func() { cancel(); <-done }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	limit := time.After(10 * time.Second)
	for {
		g.mu.Lock()
		may := g.core.MayBePrimary(g.cfg.Clock())
		g.mu.Unlock()
		if may {
			return
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatal("the guard has no proof after 10 s: it did not ask the hub")
		}
	}
}

// An agent that has just started and knows no role yet is no answer to a primary: one
// that crash-loops would keep its guard from asking the hub.
func TestAnAnswerWithoutARoleDoesNotKeepAPrimaryFromAskingTheHub(t *testing.T) {
	g := newGuard(t, &database{})
	knowsNothing := &agentv1.Proof{Incarnation: 1, Revision: 1, RemainingMillis: 5000}
	for _, tt := range []struct {
		mode  agentv1.DatabaseMode
		heard bool
	}{{primary, false}, {agentv1.DatabaseMode_DATABASE_MODE_STOPPED, true}} {
		g.heard = 0
		g.set(func() { g.core.mode = tt.mode })
		if err := g.learn(Instant(time.Minute), knowsNothing, false); err != nil {
			t.Fatal(err)
		}
		if heard := g.heard != 0; heard != tt.heard {
			t.Errorf("a database in mode %v: heard is %t, want %t", tt.mode, heard, tt.heard)
		}
	}
}
