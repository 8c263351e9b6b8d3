package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"tripod.dev/tripod/hub/identity"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/term"
)

// newStore opens the replicated store and the etcd v3 API over it. leases is told
// of every renewal that is applied.
func newStore(c Config, who *identity.Identity, leases *term.Leases, metrics prometheus.Registerer, logger *slog.Logger) (*hubstore.Store, *etcdapi.Server, error) {
	config := hubstore.Config{
		Name:       c.Name,
		DataDir:    filepath.Join(c.DataDir, "store"),
		RaftListen: net.JoinHostPort(c.self().Address, RaftPort),
		Bootstrap:  c.Bootstrap,
		TLS:        who.PeerTLS(),
		OnRenewal:  func(r hubstore.RenewalApplied) { leases.Renewed(r.Clusters, r.Revision, r.Steady) },
		OnRestore:  leases.Restored,
		Timing:     hubstore.LAN(),
		Logger:     logger,
		Registerer: metrics,
		History:    c.StoreHistory.Duration, HistoryRevisions: c.StoreHistoryRevisions,
	}
	if c.StoreQuota != nil {
		config.Quota = c.StoreQuota.Value()
	}
	if c.Profile == "WAN" {
		config.Timing = hubstore.WAN()
	}
	for _, m := range c.Members {
		config.Members = append(config.Members, m.stored())
	}
	store, err := hubstore.New(config)
	if err != nil {
		return nil, nil, err
	}
	api, err := etcdapi.New(store, etcdapi.Config{
		Listen: []string{c.etcdAddress()},
		TLS:    who.ServerTLS(),
		Logger: logger,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open the etcd API: %w", err)
	}
	return store, api, nil
}

// stored is the member as the store keeps it.
func (m MemberConfig) stored() hubstore.Member {
	return hubstore.Member{
		Name: m.Name, Region: m.Region, Center: m.Center, Address: m.Address,
		RaftAddress: net.JoinHostPort(m.Address, RaftPort),
		PeerAddress: net.JoinHostPort(m.Address, EtcdPort),
	}
}

// openIdentity reads, makes or fetches this member's identity.
func openIdentity(ctx context.Context, c Config, logger *slog.Logger) (*identity.Identity, error) {
	token, err := readToken(c.HubTokenFile)
	if err != nil {
		return nil, err
	}
	config := identity.Config{
		Name: c.Name, DataDir: c.DataDir, Advertise: c.self().Address,
		Bootstrap: c.Bootstrap, Token: token, Logger: logger,
	}
	for _, m := range c.Members {
		if m.Name != c.Name {
			config.Peers = append(config.Peers, identity.PeerAddress{Name: m.Name, Address: net.JoinHostPort(m.Address, RPCPort)})
		}
	}
	return identity.Open(ctx, config)
}
