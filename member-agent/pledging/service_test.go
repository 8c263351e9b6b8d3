package pledging

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/authority"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bearer is who shows a certificate, and whom it believes.
type bearer struct {
	certificate tls.Certificate
	pool        *x509.CertPool
}

func (b bearer) ServingCertificate() (*tls.Certificate, error) { return &b.certificate, nil }
func (b bearer) Authority() *x509.CertPool                     { return b.pool }

func issue(t *testing.T, hub *authority.Authority, name, organization string) bearer {
	t.Helper()
	return bearer{hub.Issue(t, name, organization), hub.Pool()}
}

func agent(t *testing.T, hub *authority.Authority, cluster string) bearer {
	t.Helper()
	return issue(t, hub, "tripod:agent:"+cluster, "tripod:agents")
}

// quick are times for a test on real connections.
func quick() lease.Config {
	c := lease.LAN()
	c.Tick, c.TTL, c.GuardMargin = 200*time.Millisecond, time.Second, 100*time.Millisecond
	return c
}

// agentOf is one replica of an agent, served on an address of its own.
type agentOf struct {
	*Pledges
	address string
	tenure  atomic.Bool
}

func serve(t *testing.T, cluster string, who bearer, replicas string, record Record) *agentOf {
	t.Helper()
	a := &agentOf{}
	var err error
	a.Pledges, err = New(Config{Cluster: cluster, Replicas: replicas, Identity: who, Record: record, Tenure: a.tenure.Load, Lease: quick()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.address = listener.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{who.certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: who.pool})))
	a.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		server.Stop()
		<-ran
		<-served
	})
	return a
}

func (a *agentOf) become(active bool) {
	a.tenure.Store(active)
	a.SetActive(active)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// held is a grant of the primary role to a; b pledges at address.
func held(address string) *agentv1.Grant {
	g := primary(3, "b")
	g.TtlMillis = 1000
	g.Roles[0].Peers[0].AgentAddress = address
	return g
}

func TestAPrimaryWithoutAHubLivesOnThePledgesOfItsStandby(t *testing.T) {
	hub := authority.New(t, "hub")
	record := &shelf{}
	b := serve(t, "b", agent(t, hub, "b"), "", record)
	b.Granted(grant(3, func(g *agentv1.Grant) { g.TtlMillis = 1000 }), 0)
	b.become(true)
	a := serve(t, "a", agent(t, hub, "a"), "", &shelf{})
	a.Granted(held(b.address), 0)
	kept := func() time.Duration { return a.Kept(dbKey, 3, nil) }
	eventually(t, "pledges keep the primary", func() bool { return kept() > 0 })
	// It goes on for longer than any one pledge.
	began := time.Now()
	eventually(t, "three leases have passed", func() bool {
		if kept() <= 0 {
			t.Fatalf("the pledges ended after %v", time.Since(began))
		}
		return time.Since(began) > 3*time.Second
	})
	// The standby sees a newer epoch: the role ends with the last pledge.
	if err := b.Yield(t.Context(), 1, dbKey, 4); err != nil {
		t.Fatal(err)
	}
	if left := kept(); left > 0 {
		t.Errorf("the standby may be promoted, and its pledge keeps the primary for %v", left)
	}
}

func TestAReplicaThatIsNotActivePassesTheQuestionOn(t *testing.T) {
	hub := authority.New(t, "hub")
	record := &shelf{}
	active := serve(t, "b", agent(t, hub, "b"), "", record)
	active.Granted(grant(3, func(g *agentv1.Grant) { g.TtlMillis = 1000 }), 0)
	active.become(true)
	passive := serve(t, "b", agent(t, hub, "b"), active.address, record)
	a := serve(t, "a", agent(t, hub, "a"), "", &shelf{})
	a.Granted(held(passive.address), 0)
	eventually(t, "a pledge comes through the passive replica", func() bool { return a.Kept(dbKey, 3, nil) > 0 })
}

func TestNobodyPledgesForAnother(t *testing.T) {
	hub, other := authority.New(t, "hub"), authority.New(t, "other")
	for name, tc := range map[string]struct {
		asks, answers bearer
		onBehalfOf    string
		want          string
	}{
		"another cluster answers":            {agent(t, hub, "a"), agent(t, hub, "c"), "", `not the agent of cluster b`},
		"a guard answers":                    {agent(t, hub, "a"), issue(t, hub, "tripod:guard:b:pay:db", "tripod:guards"), "", "not the agent of cluster b"},
		"another hub's agent answers":        {agent(t, hub, "a"), agent(t, other, "b"), "", "not of this hub"},
		"another cluster asks":               {agent(t, hub, "d"), agent(t, hub, "b"), "", "d holds no copy"},
		"a guard asks":                       {issue(t, hub, "tripod:guard:a:pay:db", "tripod:guards"), agent(t, hub, "b"), "", "not an agent's"},
		"another cluster asks in its name":   {agent(t, hub, "d"), agent(t, hub, "b"), "a", "for its own cluster only"},
		"an agent's name of another's group": {issue(t, hub, "tripod:agent:a", "tripod:members"), agent(t, hub, "b"), "", "not an agent's"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.answers.pool = hub.Pool()
			b := serve(t, "b", tc.answers, "", &shelf{})
			b.Granted(grant(3, func(g *agentv1.Grant) { g.TtlMillis = 1000 }), 0)
			b.become(true)
			p := newPeers(Config{Cluster: "a", Identity: tc.asks, Lease: quick()}.withDefaults())
			defer p.close()
			request := &agentv1.PledgeRequest{TtlMillis: 1000, OnBehalfOf: tc.onBehalfOf,
				Roles: []*agentv1.PledgedRole{{Dataset: dbKey, Incarnation: 1, Epoch: 3}}}
			said := ""
			eventually(t, "an answer other than that the replica is not active yet", func() bool {
				response, err := p.ask(t.Context(), "b", b.address, request)
				switch {
				case err != nil:
					said = err.Error()
				case response.GetAnswers()[0].GetPledged():
					said = "a pledge"
				default:
					said = response.GetAnswers()[0].GetReason()
				}
				return !strings.Contains(said, errInactive.Error())
			})
			if !strings.Contains(said, tc.want) {
				t.Errorf("got %q, want %q", said, tc.want)
			}
		})
	}
}
