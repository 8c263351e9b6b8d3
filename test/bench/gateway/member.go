package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
	"tripod.dev/tripod/test/multikind/center/pki"
)

// end is the member's end of sessions and tunnels: the hub's session server, in this
// process, so that its memory can be read.
type end struct {
	name      string
	folder    string
	authority *pki.Authority
	// other is a second member, of the same hub.
	other   *end
	address string
	tls     *tls.Config
	server  *session.Server
	stop    func() error
}

func newEnd(folder string) (*end, error) {
	e := &end{name: "bench", folder: folder}
	authority, err := pki.OpenAuthority(folder, "ca")
	if err != nil {
		return nil, err
	}
	e.authority = authority
	pair, err := authority.Issue("member", pki.Request{CommonName: identity.Member("bench"), Organizations: []string{identity.OrganisationMembers}, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("read the member's certificate: %w", err)
	}
	e.tls = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: pool(authority.Certificate),
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool(authority.Certificate)}
	e.other = &end{name: "other", tls: e.tls}
	if err := e.other.start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	if err := e.start("127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, e.other.stop())
	}
	return e, nil
}

// close stops both members.
func (e *end) close() error { return errors.Join(e.stop(), e.other.stop()) }

// start listens again on the address that it had.
func (e *end) start(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	e.address = listener.Addr().String()
	e.server, err = session.New(session.Config{
		Name: e.name, Center: "bench", Lease: slow(), Listener: listener, TLS: e.tls, Incarnation: func() uint64 { return 1 },
		Leadership: e, Leaser: e, Admit: func(string) error { return nil }, Logger: slog.New(slog.DiscardHandler),
		Identify: func(c *x509.Certificate) (session.Identity, error) {
			peer, err := identity.ParsePeer(c)
			return session.Identity{Cluster: peer.Cluster}, err
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.server.Run(ctx) }()
	e.stop = func() error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	return nil
}

// slow are few heartbeats: a thousand agents and both members are on one machine here.
func slow() lease.Config {
	c := lease.LAN()
	c.Tick, c.TTL = 10*time.Second, time.Minute
	return c
}

// Leader implements session.Leadership: each of the two leads, which is nobody's
// concern here.
func (e *end) Leader() (string, <-chan struct{}) { return e.name, nil }

// Hear implements session.Leaser and grants nothing.
func (e *end) Hear(_ context.Context, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	response := &hubv1.RelayResponse{}
	for range request.GetHeartbeats() {
		response.Grants = append(response.Grants, &agentv1.Grant{})
	}
	return response, nil
}

// agents are that many clusters', each with a certificate.
func (e *end) agents(n int) ([]Agent, error) {
	var all []Agent
	for i := range n {
		cluster := fmt.Sprintf("cluster-%04d", i)
		pair, err := e.authority.Issue("agent-"+cluster, pki.Request{CommonName: identity.Agent(cluster), Organizations: []string{identity.OrganisationAgents}})
		if err != nil {
			return nil, err
		}
		all = append(all, Agent{cluster, Pair(pair)})
	}
	return all, nil
}

// far is a process with n agents, with sessions if they are wanted; direct and proxy, if
// wanted, are addresses to serve on.
func (e *end) far(self string, n int, sessions bool, direct, proxy string) (stop func(), err error) {
	agents, err := e.agents(n)
	if err != nil {
		return nil, err
	}
	server, err := e.authority.Issue("server", pki.Request{CommonName: "server", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	f := Far{Members: []string{e.address, e.other.address}, Agents: agents, Sessions: sessions, Roots: e.authority.Certificate, Direct: direct, Proxy: proxy, Server: Pair(server)}
	_, stop, err = f.start(self, filepath.Join(e.folder, "far.json"))
	return stop, err
}

// awaitTunnels returns when n agents can be reached through this member.
func (e *end) awaitTunnels(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; i < n; {
		conn, err := e.server.Dial(ctx, fmt.Sprintf("cluster-%04d", i))
		if err == nil {
			_ = conn.Close()
			i++
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d agents have a tunnel: %w", i, n, err)
		}
	}
	return nil
}

// awaitAgents returns when n agents have a session with this member and a tunnel to it.
func (e *end) awaitAgents(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		here := 0
		for _, presence := range e.server.Presence() {
			if presence.Tunnel {
				here++
			}
		}
		if here == n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d agents have a session and a tunnel: %w", here, n, ctx.Err())
		}
	}
}

// through is a client of the first cluster's backend by way of its tunnel, direct one
// of the same backend over TLS.
func (e *end) through() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		cluster, _, _ := strings.Cut(address, ":")
		return e.server.Dial(ctx, cluster)
	}}}
}

func (e *end) direct() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: e.tls.RootCAs}}}
}
