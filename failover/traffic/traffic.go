// Package traffic is the contract of a traffic driver: what leads clients to
// where an application is active. The engine decides a route and commits it in
// GlobalService.status; drivers carry it out.
package traffic

import (
	"context"
	"errors"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// ErrOlderEpoch is returned by Switch for a route older than the one in effect
// (invariant I5).
var ErrOlderEpoch = errors.New("the route is older than the one in effect")

// Driver makes routes effective. It is safe for concurrent use.
type Driver interface {
	// Switch makes the route effective before it returns. Doing it twice has the
	// effect of doing it once. A route with an epoch lower than the one in effect
	// for the same service is refused with ErrOlderEpoch and changes nothing.
	Switch(ctx context.Context, route Route) error
	// Withdraw forgets a service that is gone.
	Withdraw(ctx context.Context, service string) error
}

// Route is where a name leads as of an epoch.
type Route struct {
	// Service is NAMESPACE/NAME, and UID tells a service from its successor of the
	// same name, whose epochs start anew.
	Service, UID string
	// Host is a fully qualified name without the final dot.
	Host  string
	Epoch int64
	TTL   time.Duration
	// Created decides which of two services with one host has it: the older.
	Created time.Time
	// Endpoints are where the name leads now; none means nowhere yet.
	Endpoints []Endpoint
}

// Endpoint is one place a route leads to.
type Endpoint struct {
	Cluster string
	Address string
	Port    uint16
	Weight  int32
}

// RouteOf reads the committed route of a service. AllHealthy leads everywhere
// until the engine has decided; ActiveOnly leads nowhere until then.
func RouteOf(g *v1alpha1.GlobalService) Route {
	r := Route{
		Service: g.Namespace + "/" + g.Name, UID: string(g.UID), Host: g.Spec.Host, Epoch: g.Status.Epoch,
		TTL: time.Duration(g.Spec.TTLSeconds) * time.Second, Created: g.CreationTimestamp.Time,
	}
	for _, e := range g.Spec.Endpoints {
		undecided := g.Status.Epoch == 0 && g.Spec.Mode == v1alpha1.AllHealthy
		if undecided || slices.Contains(g.Status.Answers, e.Address) {
			r.Endpoints = append(r.Endpoints, Endpoint{Cluster: e.Cluster, Address: e.Address, Port: uint16(e.Port), Weight: e.Weight})
		}
	}
	return r
}
