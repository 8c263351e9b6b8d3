package hub

import (
	"context"
	"fmt"
	"net"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	failovercontroller "tripod.dev/tripod/failover/controller"
	"tripod.dev/tripod/failover/traffic/dns"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/identity"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/term"
	"tripod.dev/tripod/placement/catalog"
	placementcontroller "tripod.dev/tripod/placement/controller"
	"tripod.dev/tripod/placement/desired"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// services are what every member does with its own API server, leader or not,
// so that a new leader finds everything warm.
type services struct {
	leader   *leaderName
	catalog  *catalog.Catalog
	reports  *placementcontroller.Reports
	renderer *desired.Renderer
	engine   *failovercontroller.Controller
	// names is nil when no DNS is configured.
	names *dns.Server
}

func (s *services) parts(m *Member) []part {
	parts := []part{
		{"leader's name", func(ctx context.Context) error { return s.leader.follow(ctx, m.store) }},
		{"catalog", m.whenServed(s.catalog.Run)},
		{"engine's caches", m.whenServed(s.engine.Warm)},
	}
	if s.names != nil {
		parts = append(parts, part{"DNS", s.names.Run})
	}
	return parts
}

func (m *Member) openServices(context.Context) (err error) {
	s := &m.services
	s.leader = &leaderName{changed: make(chan struct{})}
	api := m.apiserver.Loopback()
	if s.catalog, err = catalog.New(catalog.Config{RESTConfig: api, Log: m.logger}); err != nil {
		return err
	}
	s.reports = placementcontroller.NewReports()
	s.renderer, err = desired.New(desired.Config{Catalog: s.catalog, Incarnation: m.store.Incarnation, Log: m.logger})
	if err != nil {
		return err
	}
	s.engine, err = failovercontroller.New(failovercontroller.Config{
		Member: m.config.Name, Rest: api, Statuses: m.apiserver.Statuses(), Feeds: m.apiserver.Feeds(),
		Incarnation: m.store.Incarnation, Term: m.currentTerm,
		Applied: m.store.Revision,
		Leases:  m.senses.leases, Vantages: sight{m.senses.vantages, m.senses.observations}, Observations: reports{m.senses.observations},
		Directives: directives(func(ctx context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error) {
			return m.sessions.Direct(ctx, cluster, d)
		}),
		Clusters:   clients(func(ctx context.Context, cluster string) (net.Conn, error) { return m.sessions.Dial(ctx, cluster) }),
		HubPledges: func() bool { return m.store.Level() >= hubstore.LevelPledges },
		Signer:     m.identity.EvidenceKey(),
		Engine:     failover.DefaultConfig(m.lease.Tick, m.lease.TTL),
		Log:        m.logger,
	})
	if err != nil {
		return err
	}
	for _, c := range s.engine.Collectors() {
		if err := m.metrics.Register(c); err != nil {
			return fmt.Errorf("register the engine's metrics: %w", err)
		}
	}
	return m.openDNS()
}

// openDNS makes the authoritative DNS server of the global services.
func (m *Member) openDNS() (err error) {
	if m.config.DNS.Listen == "" {
		return nil
	}
	config := dns.Config{
		Listen: m.config.DNS.Listen, Zones: m.config.DNS.Zones, RESTConfig: m.apiserver.Loopback(),
		Registerer: m.metrics, Log: m.logger,
	}
	config.Current = func() []dns.Nameserver {
		var servers []dns.Nameserver
		for _, member := range m.store.Membership().List() {
			servers = append(servers, dns.Nameserver{Name: member.Name, Address: member.Address})
		}
		return servers
	}
	for _, member := range m.config.Members {
		config.Nameservers = append(config.Nameservers, dns.Nameserver{Name: member.Name, Address: member.Address})
	}
	m.services.names, err = dns.New(config)
	return err
}

// directives is a function that carries a directive to an agent; the sessions
// are opened after the engine.
type directives func(ctx context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error)

func (f directives) Direct(ctx context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error) {
	return f(ctx, cluster, d)
}

// openLeaderWork lists what exactly one member does, in the order in which each
// term starts it.
func (m *Member) openLeaderWork(context.Context) error {
	api := m.apiserver.Loopback()
	signer, err := identity.NewSigner(m.identity, api)
	if err != nil {
		return err
	}
	placements, err := placementcontroller.New(placementcontroller.Config{
		RESTConfig: api, Catalog: m.services.catalog, Reports: m.services.reports, Log: m.logger,
	})
	if err != nil {
		return err
	}
	writer, err := newStatusWriter(m)
	if err != nil {
		return err
	}
	status := term.NewClusterStatus(term.ClusterStatusConfig{
		Fleet: m.senses.committed, Leases: m.senses.leases, Vantages: m.senses.vantages,
		Facts: m.sessions, Writer: writer, Members: m.memberNames, Logger: m.logger,
	}, m.lease.Tick)
	inTerm := func(run func(context.Context) error) func(context.Context, uint64) error {
		served := m.whenServed(run)
		return func(ctx context.Context, _ uint64) error { return served(ctx) }
	}
	runnables := []term.Runnable{
		// Leases first, and without waiting for the API: a late renewal costs a
		// cluster its roles.
		{Name: "leases", Run: m.senses.leaser.Run},
		{Name: "failover", Run: inTerm(m.services.engine.Run)},
		{Name: "cluster-status", Run: func(ctx context.Context, term uint64) error {
			return m.whenServed(func(ctx context.Context) error { return status.Run(ctx, term) })(ctx)
		}},
		{Name: "signer", Run: inTerm(signer.Run)},
		{Name: "placement", Run: inTerm(placements.Run)},
		{Name: "evidence-key", Run: inTerm(m.publishEvidenceKey)},
	}
	for _, upstream := range m.apiserver.LeaderControllers() {
		runnables = append(runnables, term.Runnable{Name: upstream.Name, Run: inTerm(upstream.Run)})
	}
	// A restored hub changes nothing before it is approved.
	for i, r := range runnables {
		runnables[i].Run = func(ctx context.Context, term uint64) error {
			if err := m.seal.wait(ctx); err != nil {
				return err
			}
			return r.Run(ctx, term)
		}
	}
	m.runner = term.NewRunner(term.RunnerConfig{
		Subscribe: m.leaderships, Barrier: m.store.Barrier, Runnables: runnables, Logger: m.logger,
	})
	return nil
}

// whenServed has run start when this member's API server serves Tripod's kinds.
func (m *Member) whenServed(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.apiserver.Ready():
			return run(ctx)
		}
	}
}

// statusWriter writes Cluster.status through the member's own API server.
type statusWriter struct{ client client.Client }

func newStatusWriter(m *Member) (statusWriter, error) {
	c, err := client.New(m.apiserver.Loopback(), client.Options{Scheme: failovercontroller.Scheme()})
	if err != nil {
		return statusWriter{}, fmt.Errorf("make the writer of cluster status: %w", err)
	}
	return statusWriter{c}, nil
}

func (w statusWriter) UpdateStatus(ctx context.Context, cluster *v1alpha1.Cluster) error {
	return w.client.Status().Update(ctx, cluster)
}
