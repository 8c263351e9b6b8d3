package failover

import (
	"fmt"
	"time"
)

// Config holds the times of the engine. All durations are monotonic.
type Config struct {
	// Suspect is how long a cluster may be silent before it is called Silent.
	// While a cluster of another center is Silent, a loss is not acted upon:
	// the two may be one event (invariant I4).
	Suspect time.Duration
	// Grace is how long a leader watches after an outage of the hub itself before
	// it calls a cluster lost: the agents are still dialling.
	Grace time.Duration
	// VantageAge is how old a hub member's report may be to count as a vantage.
	VantageAge time.Duration
	// VantageCenters other than its own must miss a lost cluster.
	VantageCenters int
	// BreakerWindow: losses in several centers within it open the breaker.
	BreakerWindow time.Duration
	// Fresh is how old a dataset's observation may be to be acted upon.
	Fresh time.Duration
	// Detach is how long a synchronous standby of a MaxAvailability dataset may
	// be without a stream before the sync set is shrunk.
	Detach time.Duration
	// Retry is the pause before a failed command is tried again.
	Retry time.Duration
	// Directive bounds the work of one command at the agent.
	Directive time.Duration
	// Answer is what a question adds to the loss so far for people to answer and the old
	// primary to be proven stopped, where it may be writing. If that takes longer, they
	// are asked again.
	Answer time.Duration
	// Pledges lets agents keep a primary on pledges while no hub renews its lease.
	// It must stay on where it ever was: elapsed time alone proves less then
	// (safety.md section 6).
	Pledges bool
	// SyncLagBytes is the most a standby may lag to be taken into the sync set:
	// the primary's writes wait until it has caught up.
	SyncLagBytes int64
}

// DefaultConfig fits a lease of ttl renewed each tick.
func DefaultConfig(tick, ttl time.Duration) Config {
	return Config{
		Suspect:        ttl / 2,
		Grace:          4 * ttl,
		VantageAge:     2*tick + tick/2,
		VantageCenters: 2,
		BreakerWindow:  time.Minute,
		Fresh:          3 * tick,
		Detach:         ttl,
		Retry:          tick / 2,
		Directive:      60 * time.Second,
		Answer:         5 * time.Minute,
		Pledges:        true,
		SyncLagBytes:   16 << 20,
	}
}

// leaseBound is how long after its last renewal a primary may still write.
func (c Config) leaseBound() time.Duration { return 3 * c.Suspect }

// transit is how long a heartbeat, or what a copy is sent of the log, may be under way: a
// session that is silent for as long has ended.
func (c Config) transit() time.Duration { return 2 * c.Suspect }

// Validate refuses a configuration that could not tell a loss from a pause.
func (c Config) Validate() error {
	for name, d := range map[string]time.Duration{
		"Suspect": c.Suspect, "Grace": c.Grace, "VantageAge": c.VantageAge, "BreakerWindow": c.BreakerWindow,
		"Fresh": c.Fresh, "Detach": c.Detach, "Retry": c.Retry, "Directive": c.Directive, "Answer": c.Answer,
	} {
		if d <= 0 {
			return fmt.Errorf("failover %s is %v: must be positive", name, d)
		}
	}
	if c.VantageCenters < 1 {
		return fmt.Errorf("failover VantageCenters is %d: at least one center must miss a cluster before it is lost", c.VantageCenters)
	}
	return nil
}

// Cluster is where a member cluster is.
type Cluster struct {
	Name, Region, Center string
	// AgentAddress is where its agent answers other agents, or empty.
	AgentAddress string
	// Hold is why a person keeps roles away from it now, or empty.
	Hold string
}

// HubMember is one possible vantage.
type HubMember struct {
	Name, Center string
	// Reported is the age of the member's last report to the leader; the
	// leader's own is 0.
	Reported time.Duration
}

// Sighting is what the leader knows of one cluster's liveness, all on its own
// monotonic clock.
type Sighting struct {
	// LeaseOver is the lease book's word: the lease is surely over.
	LeaseOver bool
	// Silent is the time since the last renewal was applied.
	Silent time.Duration
	// Lapsed is the time since the newest renewal after which its lease ran out and it
	// was heard again, while the hub heard others; 0 if no such time is known.
	Lapsed time.Duration
	// HeardBy holds, for each hub member that ever heard the cluster, the age
	// of the last heartbeat.
	HeardBy map[string]time.Duration
	// Unobservable is the agent's reason why it cannot observe, or empty.
	Unobservable string
	// Stable is how long this leader has heard it without a gap.
	Stable time.Duration
}

// Fleet is the liveness of all accepted clusters.
type Fleet struct {
	Clusters  []Cluster
	Members   []HubMember
	Sightings map[string]Sighting
	// Watching is how long this leader has collected sightings in its term.
	Watching time.Duration
	// AfterOutage is true when the term began after a time in which the hub
	// renewed nobody, so that silence says nothing about the clusters yet.
	AfterOutage bool
	// Prompt is for how long this leader has applied renewals about when they were
	// proposed. Those before may be older than they seem: of a member that lagged, or
	// has just started, all leases seem to end together.
	Prompt time.Duration
}

// watched is how long a leader must have watched before a silence counts. One whose
// account is young must have seen who else is silent after a whole lease of it.
func (f Fleet) watched(c Config) bool {
	if f.AfterOutage {
		return f.Watching >= c.Grace
	}
	return f.Watching >= c.Suspect && f.Prompt >= c.leaseBound()
}

// says is true when the silence of a cluster says something about the cluster: a
// new leader's book of leases knows how long it lasts, and only after an outage of
// the hub may it be the hub's; not even then, if this leader has heard the cluster
// before.
func (f Fleet) says(c Config, cl Cluster) bool {
	if !f.AfterOutage || f.watched(c) {
		return true
	}
	for _, age := range f.Sightings[cl.Name].HeardBy {
		if age < f.Watching {
			return true
		}
	}
	return false
}

// Cluster returns a cluster by name.
func (f Fleet) Cluster(name string) (Cluster, bool) {
	for _, c := range f.Clusters {
		if c.Name == name {
			return c, true
		}
	}
	return Cluster{}, false
}
