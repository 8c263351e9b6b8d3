// Package effector carries out what the hub decided about datasets: it hands
// proofs to the guards of its cluster, calls drivers, and reports what they see.
package effector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql"
	"tripod.dev/tripod/member-agent/drill"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Identity is the agent's own, as it is at each connection.
type Identity interface {
	// ServingCertificate is shown to guards; it names this cluster's agent.
	ServingCertificate() (*tls.Certificate, error)
	// Authority is the hub's CA, which signed the guards' certificates too.
	Authority() *x509.CertPool
	// AuthorityPEM is the same, for the guards.
	AuthorityPEM() []byte
	// Outdated says that a certificate is of another CA than the one that issues now,
	// and that it is time to replace it: guards and agents must trust the new one first.
	Outdated(leaf *x509.Certificate) (outdated, due bool)
}

// CertificateSource has the hub sign certificates of signer tripod.dev/guard.
type CertificateSource interface {
	// GuardCertificate posts a request in PEM with subject CN
	// tripod:guard:CLUSTER:NAMESPACE:DATASET, O tripod:guards, and returns the
	// certificate and the hub's authority in PEM.
	GuardCertificate(ctx context.Context, namespace, dataset string, request []byte) (certificate, authority []byte, err error)
}

// Secrets are this cluster's.
type Secrets interface {
	// Secret returns nil data, and no error, for one that does not exist. It
	// may answer from memory while the API server does not.
	Secret(ctx context.Context, namespace, name string) (map[string][]byte, error)
	// PutSecret creates or replaces one.
	PutSecret(ctx context.Context, namespace, name string, data map[string][]byte) error
}

// Drills are carried out by member-agent/drill.
type Drills interface {
	Start(ctx context.Context, o drill.Order) (string, error)
	Stop(ctx context.Context, o drill.Order) error
}

// Pledges are what keeps a primary role when no hub renews the lease, and what
// this cluster has promised to others (member-agent/pledging).
type Pledges interface {
	// Granted takes in a grant whose lease ends in remaining.
	Granted(g *agentv1.Grant, remaining time.Duration)
	// Saw takes in an epoch that a guard's volume holds.
	Saw(dataset *agentv1.DatasetKey, epoch int64)
	// Kept is for how much longer pledges keep the primary role of the newest
	// grant, for a copy that surely waits for waits.
	Kept(dataset *agentv1.DatasetKey, epoch int64, waits []string) time.Duration
	// Yield returns when this cluster may take part in epoch: it is durable here,
	// and every pledge given for an older one is over.
	Yield(ctx context.Context, incarnation uint64, dataset *agentv1.DatasetKey, epoch int64) error
	// Pledgers are whose pledges are needed, and whose are not to be had.
	Pledgers(dataset *agentv1.DatasetKey) (needed, missing []string)
}

// Config of an effector.
type Config struct {
	Cluster string
	// Replica is this agent's pod.
	Replica string
	// Listen is where guards attach.
	Listen       string
	Identity     Identity
	Certificates CertificateSource
	Secrets      Secrets
	// Drills makes copies apart from production; without it drills are refused.
	Drills Drills
	// Hubs are HOST:PORT of the hub's members as known now: guards that no agent
	// answers ask them. Optional.
	Hubs func() []string
	// Active says whether this replica carries out effects now.
	Active func() bool
	// Pledges is nil where roles end with the lease and nobody is promised anything.
	Pledges Pledges
	// Serve adds services to the port where guards attach; optional.
	Serve func(grpc.ServiceRegistrar)
	// Hurry asks for a heartbeat now, so that a fresh grant comes; optional.
	Hurry func()
	// Drivers by name; the built-in ones when nil.
	Drivers map[string]driver.Driver
	// Sockets are the drivers that run beside the agent: the path of each one's Unix
	// socket by the name that datasets know it by.
	Sockets map[string]string
	Tick    time.Duration
	Log     *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = ":7443"
	}
	if c.Tick == 0 {
		c.Tick = time.Second
	}
	if c.Pledges == nil {
		c.Pledges = noPledges{}
	}
	if c.Serve == nil {
		c.Serve = func(grpc.ServiceRegistrar) {}
	}
	if c.Hurry == nil {
		c.Hurry = func() {}
	}
	if c.Hubs == nil {
		c.Hubs = func() []string { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate names the first thing that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Cluster == "":
		return errors.New("effector: cluster is empty, expected this cluster's name in the hub")
	case c.Identity == nil:
		return errors.New("effector: identity is missing, guards could not attach")
	case c.Secrets == nil || c.Certificates == nil:
		return errors.New("effector: secrets or certificates are missing, guards could not be given theirs")
	case c.Active == nil:
		return errors.New("effector: active is missing, two replicas would act at once")
	}
	return nil
}

// builtIn are the drivers that need nothing installed.
func builtIn(hosts postgresql.Hosts, secrets postgresql.Secrets) map[string]driver.Driver {
	return map[string]driver.Driver{postgresql.Name: postgresql.New(hosts, secrets)}
}

// key is how datasets are told apart in maps.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

func keyOf(d *agentv1.DatasetKey) key { return key{d.GetNamespace(), d.GetName()} }
