package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"tripod.dev/tripod/hub/identity"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/term"
)

// understands lowers the level of the command set that this build understands; the
// linker sets it for tests of upgrades (-X tripod.dev/tripod/hub.understands=1), so
// that one tree builds the old program and the new one. Empty is all that the code
// does.
var understands string

func understood() (uint32, error) {
	if understands == "" {
		return hubstore.CommandVersion, nil
	}
	level, err := strconv.ParseUint(understands, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("this program was built to understand level %q of the command set: build it with a number", understands)
	}
	return uint32(level), nil
}

// newStore opens the replicated store and the etcd v3 API over it. leases is told
// of every renewal that is applied.
func newStore(c Config, who *identity.Identity, leases *term.Leases, metrics prometheus.Registerer, logger *slog.Logger) (*hubstore.Store, *etcdapi.Server, error) {
	level, err := understood()
	if err != nil {
		return nil, nil, err
	}
	config := hubstore.Config{
		Name:       c.Name,
		DataDir:    filepath.Join(c.DataDir, "store"),
		RaftListen: net.JoinHostPort(c.self().Address, RaftPort),
		Bootstrap:  c.Bootstrap && who.Founds(),
		TLS:        who.PeerTLS(),
		Roots:      who.Roots,
		OnRenewal:  func(r hubstore.RenewalApplied) { leases.Renewed(r.Clusters, r.Revision, r.Steady) },
		OnRestore:  leases.Restored,
		Timing:     hubstore.LAN(),
		Version:    Version, Understands: level,
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
		Roots:  who.Roots,
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
	level, err := understood()
	if err != nil {
		return nil, err
	}
	config := identity.Config{
		Name: c.Name, DataDir: c.DataDir, Advertise: c.self().Address,
		Bootstrap: c.Bootstrap, Token: token, Understands: level, Logger: logger,
	}
	for _, m := range c.Members {
		if m.Name != c.Name {
			config.Peers = append(config.Peers, identity.PeerAddress{Name: m.Name, Address: net.JoinHostPort(m.Address, RPCPort)})
		}
	}
	return identity.Open(ctx, config)
}
