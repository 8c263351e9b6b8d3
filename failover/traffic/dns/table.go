package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"tripod.dev/tripod/failover/traffic"
)

// Table holds the routes in effect. It is the DNS traffic driver: a route is
// effective when Switch returns. Readers take a snapshot and never wait.
type Table struct {
	// current is copied on every write.
	current atomic.Pointer[names]
	ready   atomic.Bool

	mu       sync.Mutex
	services map[string]traffic.Route
}

var _ traffic.Driver = (*Table)(nil)

// names is an immutable snapshot by canonical host name.
type names struct {
	hosts map[string]traffic.Route
	// parents are names above a host: they exist and have no records.
	parents map[string]bool
	serial  uint32
}

// NewTable returns a table without routes, which is not ready.
func NewTable() *Table {
	t := &Table{services: map[string]traffic.Route{}}
	t.current.Store(&names{hosts: map[string]traffic.Route{}, parents: map[string]bool{}, serial: 1})
	return t
}

// Ready says that the table has all routes that were committed when it was
// filled. Before, a name that is not in it is not known not to exist.
func (t *Table) Ready() { t.ready.Store(true) }

// Switch implements traffic.Driver.
func (t *Table) Switch(_ context.Context, route traffic.Route) error {
	for _, e := range route.Endpoints {
		if _, err := netip.ParseAddr(e.Address); err != nil {
			return fmt.Errorf("service %s: endpoint of cluster %s has address %q: give an IPv4 or IPv6 address", route.Service, e.Cluster, e.Address)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	had, known := t.services[route.Service]
	if known && had.UID == route.UID && route.Epoch < had.Epoch {
		return fmt.Errorf("service %s: epoch %d after %d: %w", route.Service, route.Epoch, had.Epoch, traffic.ErrOlderEpoch)
	}
	t.services[route.Service] = route
	t.publishLocked()
	return nil
}

// Withdraw implements traffic.Driver.
func (t *Table) Withdraw(_ context.Context, service string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.services, service)
	t.publishLocked()
	return nil
}

func (t *Table) publishLocked() {
	next := &names{hosts: map[string]traffic.Route{}, parents: map[string]bool{}, serial: t.current.Load().serial + 1}
	for _, r := range t.services {
		host := dns.CanonicalName(r.Host)
		if other, taken := next.hosts[host]; taken && older(other, r) {
			continue
		}
		next.hosts[host] = r
		for parent := host; ; {
			_, rest, more := strings.Cut(parent, ".")
			if !more || rest == "" {
				break
			}
			next.parents[rest] = true
			parent = rest
		}
	}
	t.current.Store(next)
}

// older decides between two services with one host the same way everywhere.
func older(a, b traffic.Route) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.Before(b.Created)
	}
	return a.Service < b.Service
}
