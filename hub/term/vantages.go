package term

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Vantage is one hub member as seen by the leader.
type Vantage struct {
	Member string
	Center string
	// Reported is the age of the last word from it.
	Reported time.Duration
}

// Vantages is what the leader knows of who hears whom. All ages are on the
// leader's monotonic clock. It is safe for concurrent use.
type Vantages struct {
	clock Clock
	// gap is the silence after which a cluster is no longer heard steadily.
	gap time.Duration

	mu       sync.Mutex
	members  map[string]memberSeen
	clusters map[string]*sighting
}

type memberSeen struct {
	center string
	at     time.Duration
}

type sighting struct {
	heardBy      map[string]time.Duration // member, at
	last         time.Duration
	since        time.Duration // of hearing it without a gap
	unobservable string
	// agent is when an agent was heard; a guard alone can observe nothing.
	agent time.Duration
}

// NewVantages knows nobody yet.
func NewVantages(gap time.Duration, clock Clock) *Vantages {
	return &Vantages{clock: clock, gap: gap, members: map[string]memberSeen{}, clusters: map[string]*sighting{}}
}

// reset forgets everything: what an earlier term of this member saw is old.
func (v *Vantages) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.members, v.clusters = map[string]memberSeen{}, map[string]*sighting{}
}

// reported notes that a member spoke, whether it hears anyone or not.
func (v *Vantages) reported(member, center string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.members[member] = memberSeen{center, v.clock()}
}

// heard notes that member heard cluster: one of its guards, or its agent, which
// cannot observe it if there is a reason.
func (v *Vantages) heard(member, cluster string, guard bool, reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.clock()
	s := v.clusters[cluster]
	if s == nil {
		s = &sighting{heardBy: map[string]time.Duration{}, since: now, last: now, agent: now - v.gap - 1}
		v.clusters[cluster] = s
	}
	if now-s.last > v.gap {
		s.since = now
	}
	s.heardBy[member], s.last = now, now
	if !guard {
		s.agent, s.unobservable = now, reason
	}
}

// Members lists the hub members that have reported in this term, in order.
func (v *Vantages) Members() []Vantage {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.clock()
	all := make([]Vantage, 0, len(v.members))
	for name, m := range v.members {
		all = append(all, Vantage{name, m.center, now - m.at})
	}
	slices.SortFunc(all, func(a, b Vantage) int { return cmp.Compare(a.Member, b.Member) })
	return all
}

// HeardBy is the age of the last heartbeat of cluster at each member that heard
// it in this term.
func (v *Vantages) HeardBy(cluster string) map[string]time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	ages := map[string]time.Duration{}
	if s := v.clusters[cluster]; s != nil {
		now := v.clock()
		for member, at := range s.heardBy {
			ages[member] = now - at
		}
	}
	return ages
}

// Unobservable is why the cluster, although it is heard, cannot be observed;
// empty when it can, or when nobody of it was ever heard.
func (v *Vantages) Unobservable(cluster string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.clusters[cluster]
	switch {
	case s == nil:
		return ""
	case s.last-s.agent > v.gap:
		return "only guards of the cluster are heard: look at the Deployment tripod-agent in its namespace tripod-system"
	}
	return s.unobservable
}

// Stable is how long cluster has been heard without a gap; 0 while it is not.
func (v *Vantages) Stable(cluster string) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, now := v.clusters[cluster], v.clock()
	if s == nil || now-s.last > v.gap {
		return 0
	}
	return now - s.since
}
