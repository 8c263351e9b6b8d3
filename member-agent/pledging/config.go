package pledging

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"tripod.dev/tripod/failover/guard"
	"tripod.dev/tripod/failover/lease"
)

// Identity is the agent's own, as it is at each connection.
type Identity interface {
	// ServingCertificate names this cluster's agent; it is shown to both sides.
	ServingCertificate() (*tls.Certificate, error)
	// Authority is the hub's CA.
	Authority() *x509.CertPool
}

// Config of an agent replica's pledges.
type Config struct {
	Cluster string
	// Replicas is HOST:PORT; the host resolves to every replica of this cluster's
	// agent. A replica that is not active passes questions on to the others.
	Replicas string
	Identity Identity
	// Record is shared by the replicas of the agent.
	Record Record
	// Tenure is true while no other replica can be the active one. It is asked at
	// the moment in which a pledge is given.
	Tenure func() bool
	// Lease are the fleet's times until a grant has told its TTL.
	Lease lease.Config
	// Clock goes on while the machine is suspended; default: since boot.
	Clock func() time.Duration
	Log   *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Lease == (lease.Config{}) {
		c.Lease = lease.LAN()
	}
	if c.Clock == nil {
		c.Clock = func() time.Duration { return time.Duration(guard.BootClock()) }
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
		return errors.New("pledges: cluster is empty, expected this cluster's name in the hub")
	case c.Identity == nil || c.Record == nil:
		return errors.New("pledges: identity or record is missing")
	case c.Tenure == nil:
		return errors.New("pledges: tenure is missing, two replicas would pledge at once")
	}
	return c.Lease.Validate()
}

// Epoch is one that this cluster has seen of a dataset.
type Epoch struct {
	Namespace, Name string
	Epoch           int64
}

// Record is what all replicas of the agent know for good.
type Record interface {
	// Promises returns what was stored last, by any replica.
	Promises(ctx context.Context) (Promises, error)
	// Keep merges p into what is stored, so that nothing in it ever gets less, and
	// returns the result. It is durable on return, in the whole cluster.
	Keep(ctx context.Context, p Promises) (Promises, error)
}

// Promises is what binds every later replica of the agent.
type Promises struct {
	// Epochs are the highest seen, by NAMESPACE/NAME.
	Epochs map[string]int64
	// TTL is the longest that a pledge was given for.
	TTL time.Duration
}
