package hub

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/apiserver"
	"tripod.dev/tripod/hub/audit"
	"tripod.dev/tripod/hub/encryption"
	"tripod.dev/tripod/hub/gateway"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/session"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/term"
)

// Version of this build; the linker sets it for a release.
var Version = "dev"

// Member is one hub member. New makes it, Run runs it once.
type Member struct {
	config Config
	logger *slog.Logger
	clock  term.Clock
	lease  lease.Config
	// metrics is what the API server exposes under /metrics.
	metrics prometheus.Registerer
	// lock keeps other processes out of the data folder.
	lock *os.File

	identity     *identity.Identity
	box          *encryption.Box
	store        *hubstore.Store
	etcd         *etcdapi.Server
	autopilot    *member.Autopilot
	defragmenter *member.Defragmenter
	seal         *seal
	progress     *progress
	senses       senses
	audit        *audit.Log
	routes       *gateway.Routes
	apiserver    *apiserver.Server
	sessions     *session.Server
	services     services
	runner       *term.Runner
}

// New puts a member together. It blocks until this member has an identity: on a
// new hub, until the bootstrap member answers. Nothing else is waited for.
func New(ctx context.Context, config Config, logger *slog.Logger) (*Member, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	m := &Member{
		config: config, logger: logger, clock: term.Monotonic(), lease: config.leaseTiming(),
		metrics: legacyregistry.Registerer(),
	}
	if err := m.lease.Validate(); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		// 0. A place of our own.
		{"data folder", m.openDataFolder},
		// 1. Who we are: nothing is said or heard without a certificate.
		{"identity", m.openIdentity},
		{"encryption", m.openEncryption},
		// 2. What we know: the replicated store, and the clocks that watch leases.
		{"store", m.openStore},
		// 3. What we perceive: committed state, vantages, observations, the view.
		{"senses", m.openSenses},
		// 4. What is remembered of every request.
		{"audit log", m.openAudit},
		// 5. The Kubernetes API with the gateway in it.
		{"API server", m.openAPIServer},
		// 6. What every member does with the API: catalog, desired state, DNS.
		{"services", m.openServices},
		// 7. The agents' door.
		{"sessions", m.openSessions},
		// 8. What only the leader does.
		{"leader work", m.openLeaderWork},
	} {
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("open the %s: %w", step.name, remedy(err, m.config.self()))
		}
	}
	return m, nil
}

// Run serves until ctx ends or a part fails. The parts stop in the reverse of
// this order: leader work before the API it writes to, the API before its store.
func (m *Member) Run(ctx context.Context) error {
	parts := []part{
		{"store", m.store.Run},
		{"etcd API", m.etcd.Run},
		{"identity", m.identity.Run},
		{"authorities", m.followAuthorities},
		{"autopilot", m.autopilot.Run},
		{"defragmenter", m.defragmenter.Run},
		{"seal", m.seal.run},
		{"gateway", m.routes.Run},
		{"API server", m.apiserver.Run},
		{"sessions", m.sessions.Run},
	}
	parts = append(parts, m.services.parts(m)...)
	parts = append(parts, part{"leader work", m.runner.Run}, part{"audit heads", m.whenServed(m.publishAudit)}, part{"announcement", m.whenServed(m.announce)})
	defer func() { _ = m.lock.Close() }() // nothing is written to it
	defer m.routes.Close()
	m.logger.Info("hub member starts", "member", m.config.Name, "version", Version)
	if err := runParts(ctx, parts, m.logger); err != nil {
		return remedy(err, m.config.self())
	}
	return nil
}

// announce tells the operator that this member serves everything.
func (m *Member) announce(ctx context.Context) error {
	m.logger.Info("hub member is ready", "member", m.config.Name, "leader", m.store.Leadership().Leader,
		"kubeconfig", m.identity.Files().AdminKubeconfig)
	<-ctx.Done()
	return ctx.Err()
}
