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
)

// loopbackEtcd is where a member's own API server finds the store.
var loopbackEtcd = net.JoinHostPort("127.0.0.1", EtcdPort)

// newStore opens the replicated store and the etcd v3 API over it. onRenewal is
// called for every applied lease renewal.
func newStore(c Config, who *identity.Identity, onRenewal func(hubstore.RenewalApplied), metrics prometheus.Registerer, logger *slog.Logger) (*hubstore.Store, *etcdapi.Server, error) {
	config := hubstore.Config{
		Name:       c.Name,
		DataDir:    filepath.Join(c.DataDir, "store"),
		RaftListen: net.JoinHostPort(c.self().Address, RaftPort),
		Bootstrap:  c.Bootstrap,
		TLS:        who.PeerTLS(),
		OnRenewal:  onRenewal,
		Timing:     hubstore.LAN(),
		Logger:     logger,
		Registerer: metrics,
	}
	if c.Profile == "WAN" {
		config.Timing = hubstore.WAN()
	}
	for _, m := range c.Members {
		config.Members = append(config.Members, hubstore.Member{
			Name:        m.Name,
			RaftAddress: net.JoinHostPort(m.Address, RaftPort),
			PeerAddress: net.JoinHostPort(m.Address, EtcdPort),
		})
	}
	store, err := hubstore.New(config)
	if err != nil {
		return nil, nil, fmt.Errorf("open the store: %w", err)
	}
	api, err := etcdapi.New(store, etcdapi.Config{
		Listen: []string{loopbackEtcd, net.JoinHostPort(c.self().Address, EtcdPort)},
		TLS:    who.ServerTLS(),
		Logger: logger,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open the etcd API: %w", err)
	}
	return store, api, nil
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
