package term

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/failover/trail"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/proto/agent/delta"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// CopyKey names one cluster's copy of a dataset.
type CopyKey struct {
	Dataset types.NamespacedName
	Cluster string
}

// Observation is the newest one of a copy.
type Observation struct {
	*agentv1.DatasetObservation
	// Age is the time since the agent saw it, as far as the leader can tell: the
	// age that the agent gave plus the time since the heartbeat came.
	Age time.Duration
	// Runs is for how long before it came nothing else was heard of the copy than that
	// it runs; 0 if it does not.
	Runs time.Duration
	// Held is the time since the newest instant up to which the copy surely holds
	// everything that was acknowledged, nil if none is known.
	Held *time.Duration
}

// Observations holds what active replicas report in their heartbeats. It is safe
// for concurrent use; the messages must not be changed.
type Observations struct {
	clock Clock
	// late is how long after a heartbeat one with a lower number still counts
	// as late; after that it comes from a replica that has started anew.
	late time.Duration

	mu     sync.Mutex
	copies map[CopyKey]noted
	trails map[types.NamespacedName]*trail.Book
	agents replicas
}

type noted struct {
	observation *agentv1.DatasetObservation
	came        time.Duration
	seen        time.Duration
	since       time.Duration // came, of the first in a row that say that it runs
}

func (n noted) runs() bool { return v1alpha1.MemberState(n.observation.GetState()).Runs() }

// NewObservations knows none yet.
func NewObservations(late time.Duration, clock Clock) *Observations {
	return &Observations{clock: clock, late: late, copies: map[CopyKey]noted{}, trails: map[types.NamespacedName]*trail.Book{}, agents: replicas{}}
}

// Hear takes the observations of a heartbeat that this member hears itself, and Note
// those of one that another member relays. The same heartbeat comes through several
// members; only the first arrival counts.
func (o *Observations) Hear(cluster string, heartbeat *agentv1.Heartbeat) {
	o.note(cluster, heartbeat, true)
}

// Note is described at Hear.
func (o *Observations) Note(cluster string, heartbeat *agentv1.Heartbeat) {
	o.note(cluster, heartbeat, false)
}

func (o *Observations) note(cluster string, heartbeat *agentv1.Heartbeat, own bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.clock()
	o.agents.note(cluster, heartbeat, own, now)
	if !heartbeat.GetActive() || len(heartbeat.GetDatasets()) == 0 || !o.agents.news(cluster, heartbeat, o.late, now) {
		return
	}
	for i, d := range heartbeat.GetDatasets() {
		key := CopyKey{types.NamespacedName{Namespace: d.GetDataset().GetNamespace(), Name: d.GetDataset().GetName()}, cluster}
		old, ok := o.copies[key]
		next := noted{d, now, now - delta.Age(heartbeat, i), now}
		if ok && old.runs() {
			next.since = old.since
		}
		o.copies[key] = next
		o.follow(key, next)
	}
}

// follow notes how far a copy is. A replica that receives nothing may be on a lineage
// of its own, and says nothing.
func (o *Observations) follow(key CopyKey, n noted) {
	d, book := n.observation, o.trails[key.Dataset]
	if book == nil {
		book = trail.NewBook()
		o.trails[key.Dataset] = book
	}
	mark := trail.Mark{Epoch: d.GetEpoch(), Timeline: d.GetTimeline(), Position: d.GetPositionBytes()}
	switch state := v1alpha1.MemberState(d.GetState()); {
	case mark.Position <= 0:
	case d.GetRole() == agentv1.Role_ROLE_PRIMARY && state == v1alpha1.StateRunning:
		book.Wrote(mark, n.seen)
	case d.GetRole() == agentv1.Role_ROLE_REPLICA && (state == v1alpha1.StateStreaming || state == v1alpha1.StateCatchingUp):
		book.Reached(key.Cluster, mark)
	}
}

// observation of a copy at now. The caller holds mu.
func (o *Observations) observationLocked(key CopyKey, n noted, now time.Duration) Observation {
	out := Observation{DatasetObservation: n.observation, Age: now - n.seen}
	if n.runs() {
		out.Runs = n.came - n.since
	}
	if book := o.trails[key.Dataset]; book != nil {
		if at, known := book.Held(key.Cluster); known {
			since := now - at
			out.Held = &since
		}
	}
	return out
}

// Get returns the newest observation of a copy.
func (o *Observations) Get(key CopyKey) (Observation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := o.copies[key]
	return o.observationLocked(key, n, o.clock()), ok
}

// All returns the newest observation of every copy.
func (o *Observations) All() map[CopyKey]Observation {
	all := map[CopyKey]Observation{}
	o.Each(func(key CopyKey, seen Observation, _ int) { all[key] = seen })
	return all
}

// Each tells of the newest observation of every copy, and how many there are. It must
// not be called back.
func (o *Observations) Each(tell func(key CopyKey, seen Observation, of int)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.clock()
	for key, n := range o.copies {
		tell(key, o.observationLocked(key, n, now), len(o.copies))
	}
}
