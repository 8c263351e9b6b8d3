package hub

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"tripod.dev/tripod/hub/gateway"
)

// DirectAccessConfig limits where the hub connects to for clusters in mode Direct.
type DirectAccessConfig struct {
	// Allow are the only networks (CIDR) that are connected to. Empty is every
	// address but loopback, link-local and multicast ones and those of clouds'
	// metadata services. The hub's own ports are never connected to.
	Allow []string `json:"allow,omitempty"`
}

func (c DirectAccessConfig) prefixes() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range c.Allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("directAccess.allow has %q: use networks, for instance 10.20.0.0/16", text)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// reach is what the gateway may connect to.
func (m *Member) reach() (gateway.Reach, error) {
	allow, err := m.config.DirectAccess.prefixes()
	if err != nil {
		return gateway.Reach{}, err
	}
	var ports []uint16
	for _, text := range []string{APIPort, RPCPort, RaftPort, EtcdPort} {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return gateway.Reach{}, fmt.Errorf("read the port %q: %w", text, err)
		}
		ports = append(ports, uint16(port))
	}
	own := &ownAddresses{known: map[string][]netip.Addr{}, names: func() []string {
		names := []string{m.config.self().Address}
		for _, info := range m.store.Membership().List() {
			names = append(names, info.Address)
		}
		return names
	}}
	return gateway.Reach{Allow: allow, Own: own.list, OwnPorts: ports}, nil
}

// ownAddresses are where the members are. Names are looked up when they are asked
// for; what is known of one stays known while it cannot be.
type ownAddresses struct {
	names func() []string

	mu    sync.Mutex
	known map[string][]netip.Addr
}

func (o *ownAddresses) list() []netip.Addr {
	var all []netip.Addr
	for _, name := range o.names() {
		all = append(all, o.of(name)...)
	}
	return all
}

func (o *ownAddresses) of(name string) []netip.Addr {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.known[name] = found
	}
	return slices.Clone(o.known[name])
}
