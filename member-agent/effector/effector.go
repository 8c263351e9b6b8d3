package effector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Effector is the agent's part for datasets. Its methods are safe for
// concurrent use; Run owns its goroutines.
type Effector struct {
	cfg     Config
	drivers map[string]driver.Driver
	grants  *grants
	links   *links
	probe   prober

	listener net.Listener
	answers  *answers
	// certifying is how many certificates are looked at.
	certifying atomic.Int32

	mu    sync.Mutex
	sites map[key]*site
	ended bool
	long  sync.WaitGroup // work that outlives the directive it began with
}

// New listens for guards, so that an address that is taken is known at once.
func New(cfg Config) (*Effector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("effector: listen for guards: %w", err)
	}
	e := &Effector{
		cfg: cfg, grants: newGrants(), listener: listener, probe: newProber(),
		sites: map[key]*site{}, answers: newAnswers(),
	}
	e.links = newLinks(e)
	if e.drivers = cfg.Drivers; e.drivers == nil {
		e.drivers = builtIn(e.links, cfg.Secrets)
	}
	if err := e.beside(cfg.Sockets); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return e, nil
}

// Addr is where guards attach.
func (e *Effector) Addr() net.Addr { return e.listener.Addr() }

// Run serves guards and keeps every copy as its grant says until ctx ends.
func (e *Effector) Run(ctx context.Context) error {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(e.serverTLS())),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
	)
	agentv1.RegisterGuardsServer(server, e.links)
	e.cfg.Serve(server)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(e.listener); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	group.Go(func() error { e.rounds(ctx); return nil })
	group.Go(func() error { e.watchSockets(ctx); return nil })
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	err := group.Wait()
	e.end()
	for _, d := range e.drivers {
		if c, ok := d.(interface{ Close() }); ok {
			c.Close()
		}
	}
	return err
}

// end ends the long work and waits for it.
func (e *Effector) end() {
	e.mu.Lock()
	e.ended = true
	for _, s := range e.sites {
		s.preempt()
	}
	e.mu.Unlock()
	e.long.Wait()
}

func (e *Effector) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate, err := e.cfg.Identity.ServingCertificate()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
				Certificates: []tls.Certificate{*certificate},
				ClientAuth:   tls.RequireAnyClientCert,
				VerifyConnection: func(state tls.ConnectionState) error {
					return verifyChain(state.PeerCertificates, e.cfg.Identity.Authority())
				},
			}, nil
		},
	}
}

// verifyChain leaves the subject to the server, which knows what a guard is.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return errors.New("the peer shows no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// Grant takes in a grant whose lease ends at deadline on this process's clock,
// counted from when the agent asked.
func (e *Effector) Grant(g *agentv1.Grant, deadline time.Time) {
	if e.grants.take(g, deadline) {
		e.cfg.Pledges.Granted(g, time.Until(deadline))
		e.links.push()
	}
}

// Recall takes in the last grant of an earlier life of the agent. Its lease is
// over; pledges may keep the primaries in it that run. The hub is given a tick to
// answer before anybody is asked for them. It is called before any Grant.
func (e *Effector) Recall(g *agentv1.Grant) {
	e.grants.recall(g, time.Now())
	e.cfg.Pledges.Granted(g, time.Duration(g.GetTtlMillis())*time.Millisecond-e.cfg.Tick)
}

// rounds observes and reconciles every dataset each tick, and at once those whose role
// a new grant has changed. A dataset that takes long holds up no other.
func (e *Effector) rounds(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(e.cfg.Tick)
	defer tick.Stop()
	// alive: this replica acted on a lease that ran. Else any grant may change every copy.
	whole, alive := true, false
	seen := map[key]*agentv1.RoleGrant{}
	many := newTogether(e, &work)
	for {
		changed, active, all := e.grants.changes(), e.cfg.Active(), whole || !alive
		for _, role := range e.grants.roles() {
			k := keyOf(role.GetDataset())
			if old := seen[k]; !active || !all && (old == role || proto.Equal(old, role)) {
				continue
			}
			seen[k] = role
			s := e.site(k)
			if !all || !many.add(role) {
				once(&s.observing, &work, func() { e.observe(ctx, s, role) })
			}
			once(&s.reconciling, &work, func() { reconciler{e}.reconcile(ctx, s, role) })
		}
		many.observe(ctx)
		alive = active && e.grants.alive(time.Now())
		select {
		case <-tick.C:
			whole = true
		case <-changed:
			whole = false
		case <-ctx.Done():
			return
		}
	}
}

// Observations returns the latest of every dataset of the grant, and how old each is, in
// milliseconds. One that says what it said before is the same message, and none may be
// changed.
func (e *Effector) Observations() (all []*agentv1.DatasetObservation, agesMillis []int64) {
	now := time.Now()
	for _, role := range e.grants.roles() {
		o, at := e.site(keyOf(role.GetDataset())).observation(e.cfg.Pledges.Pledgers(role.GetDataset()))
		if o != nil {
			all, agesMillis = append(all, o), append(agesMillis, max(0, now.Sub(at)).Milliseconds())
		}
	}
	return all, agesMillis
}
