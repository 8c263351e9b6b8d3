// Package controller runs the failover engine on the hub's leader: it gathers
// the snapshot, calls failover.Turn, commits what the turn wrote and sends what
// it commanded. It decides nothing itself.
//
// Every member keeps the caches warm (Warm), so that a new leader's first turn
// (Run) comes within milliseconds. All state is in the hub's API: a new leader
// goes on where the old one died.
package controller

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Leases is this member's book of applied renewals, on its own clock.
type Leases interface {
	// Fence reports whether every lease of cluster that was renewed at a store
	// revision below revision (every lease, if revision is 0) is surely over,
	// and the age of the last such renewal.
	Fence(cluster string, revision int64) (over bool, age time.Duration)
	// FenceIn is how long it takes until Fence says over, if no renewal below
	// revision comes any more; 0 when it does already.
	FenceIn(cluster string, revision int64) time.Duration
	// Steady is for how long the hub has been renewing leases without a pause of
	// a lease's length, as far as this member knows.
	Steady() time.Duration
	// Prompt is for how long this member has applied every renewal about when it was
	// proposed: of the time before it knows too little to judge by.
	Prompt() time.Duration
	// Lapsed is the age of the newest renewal of cluster after which its lease ran out
	// and was renewed again while the hub renewed others; 0 if none is known.
	Lapsed(cluster string) time.Duration
}

// Sight is what the leader knows of who hears one cluster.
type Sight struct {
	// HeardBy is the age of the last heartbeat at each member that heard it.
	HeardBy map[string]time.Duration
	// Unobservable is the agent's reason why it cannot observe, or empty.
	Unobservable string
	// Stable is how long the leader has heard the cluster without a gap.
	Stable time.Duration
	// Pledges: an agent of it is heard, and every replica knows pledges.
	Pledges bool
}

// Vantages is who hears whom, on the leader's clock.
type Vantages interface {
	// Members are all hub members with the age of their last report.
	Members() []failover.HubMember
	Sight(cluster string) Sight
}

// Report is an agent's newest observation of one copy.
type Report struct {
	Cluster string
	// Age of the observation on this member's clock, its age at the agent
	// included.
	Age time.Duration
	// Held is the time since the newest instant up to which the copy surely holds
	// everything that was acknowledged, on this member's clock; nil if none is known.
	Held *time.Duration
	// Runs is for how long before it came nothing else was heard of the copy than that
	// it runs; 0 if it does not.
	Runs    time.Duration
	Dataset *agentv1.DatasetObservation
}

// Observations keeps the newest report of each copy. Every hub member keeps its
// own, from the heartbeats that it hears itself, so that a new leader has the
// last word of a side that died together with the old one.
type Observations interface {
	Reports() []Report
}

// Directives carries a directive to the active agent of a cluster and returns
// its result. An agent that nobody hears is OUTCOME_UNREACHABLE or an error.
type Directives interface {
	Direct(ctx context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error)
}

// Statuses writes the status of an object, as an API server does.
type Statuses interface {
	// Update replaces the status of the object at obj's resource version and sets the
	// new one. It fails as the API server's client does.
	Update(ctx context.Context, obj client.Object) error
}

// Feeds list and watch what the engine reads.
type Feeds interface {
	// Of returns the feed of obj's kind.
	Of(obj client.Object) (toolscache.ListerWatcher, error)
}

// Config of the controller.
type Config struct {
	// Member names this hub member in the evidence.
	Member string
	// Rest reaches this member's own API server with full rights.
	Rest *rest.Config
	// Statuses writes what the engine decides.
	Statuses Statuses
	// Feeds are what New's caches are filled from.
	Feeds Feeds
	// Incarnation of the hub and term of this member's leadership, now.
	Incarnation func() uint64
	Term        func() uint64

	// Applied is the store revision that this member has applied. The book of
	// leases knows all renewals below a revision only once that is applied.
	Applied func() int64

	Leases       Leases
	Vantages     Vantages
	Observations Observations
	Directives   Directives
	// Clusters is how hooks make Jobs; nil if they may make none.
	Clusters Clusters
	// HubPledges says whether every member of the hub knows, now and from now on,
	// that pledges may keep a primary alive: an older one that came to lead would
	// take the end of a lease for a proof.
	HubPledges func() bool
	// Signer signs the head of each run's evidence; nil leaves it unsigned.
	Signer crypto.Signer

	Engine failover.Config
	// Tick is the pace of turns when nothing wakes the engine and no lease ends.
	Tick time.Duration
	// WriteTimeout bounds one write.
	WriteTimeout time.Duration
	Log          *slog.Logger
}

func (c *Config) defaults() {
	if c.Tick == 0 {
		c.Tick = 100 * time.Millisecond
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 2 * time.Second
	}
	if c.Engine == (failover.Config{}) {
		c.Engine = failover.DefaultConfig(time.Second, 5*time.Second)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// Validate refuses a controller that lacks one of its senses.
func (c *Config) Validate() error {
	switch {
	case c.Member == "":
		return errors.New("failover controller: Member is empty: name the hub member")
	case c.Leases == nil || c.Vantages == nil || c.Observations == nil || c.Directives == nil:
		return errors.New("failover controller: Leases, Vantages, Observations and Directives must all be given")
	case c.Statuses == nil:
		return errors.New("failover controller: Statuses must be given: it writes what is decided")
	case c.Applied == nil:
		return errors.New("failover controller: Applied must be given: a lease book that lags proves nothing")
	case c.Incarnation == nil || c.Term == nil:
		return errors.New("failover controller: Incarnation and Term must be given: effectors refuse directives without them")
	case c.HubPledges == nil:
		return errors.New("failover controller: HubPledges must be given: pledges are offered only when every member knows them")
	case !c.Engine.Pledges:
		return errors.New("failover controller: Engine.Pledges is off: agents live on pledges, so elapsed time alone proves less: set it")
	}
	return c.Engine.Validate()
}
