package lease

import "time"

// Renewal is one application of a LeaseRenewal for one cluster.
type Renewal struct {
	// Revision of the store when the renewal was applied. Renewals create no
	// revision, so several may share one.
	Revision int64
	// AppliedAt is on this hub member's clock.
	AppliedAt time.Duration
}

// Book is one hub member's account of all leases, on its own clock. It is fed
// in log order by every renewal the member applies, leader or not, and answers
// for any leader, present or next. It is not safe for concurrent use.
type Book struct {
	wait     time.Duration
	floor    time.Duration
	renewals map[string][]Renewal // ascending in both fields

	pause    time.Duration
	steady   time.Duration // what the newest renewal said
	steadyAt time.Duration // when it was applied
}

// NewBook starts an account at now: a member that has just started knows
// nothing of what was renewed before, so it counts every lease from its start.
func NewBook(c Config, now time.Duration) *Book {
	return &Book{wait: c.OverAfter(), floor: now, pause: c.TTL, renewals: map[string][]Renewal{}}
}

// Restored says that the store's state was replaced by a snapshot at now. The
// renewals inside it were never applied one by one, so all leases count from
// now again.
func (b *Book) Restored(now time.Duration) {
	b.floor = max(b.floor, now)
	b.steady, b.steadyAt = 0, now
}

// Applied notes that a renewal of clusters was applied at revision, whose
// proposer had seen the hub renew steadily for so long; 0 for one that is
// replayed from the log, because it says nothing about the time since.
func (b *Book) Applied(clusters []string, revision int64, steady, now time.Duration) {
	b.steady, b.steadyAt = steady, now
	for _, name := range clusters {
		b.renewals[name] = b.appended(b.renewals[name], Renewal{Revision: revision, AppliedAt: now})
	}
}

func (b *Book) appended(rs []Renewal, r Renewal) []Renewal {
	if n := len(rs); n > 0 && rs[n-1].Revision >= r.Revision {
		r.Revision = rs[n-1].Revision // a restored log may repeat; the later time is the safe one
		rs = rs[:n-1]
	}
	// A renewal that is over is no longer needed to answer: being forgotten
	// and being over give the same answer.
	first := 0
	for first < len(rs) && rs[first].AppliedAt+b.wait <= r.AppliedAt {
		first++
	}
	return append(rs[first:len(rs):len(rs)], r)
}

// Steady is for how long, as far as this member knows, the hub has been renewing
// leases, if only nobody's, without a pause of a TTL.
func (b *Book) Steady(now time.Duration) time.Duration {
	since := now - b.steadyAt
	if since > b.pause {
		return 0
	}
	return b.steady + since
}

// Last returns the newest renewal of a cluster since the book was started.
func (b *Book) Last(cluster string) (Renewal, bool) {
	rs := b.renewals[cluster]
	if len(rs) == 0 {
		return Renewal{}, false
	}
	return rs[len(rs)-1], true
}

// Counted is the instant from which the lease of cluster is counted: when its
// newest renewal below revision was applied, of any revision if that is 0, or
// when the member started if it knows of none.
func (b *Book) Counted(cluster string, revision int64) time.Duration {
	rs := b.renewals[cluster]
	for i := len(rs) - 1; i >= 0; i-- {
		if revision == 0 || rs[i].Revision < revision {
			return max(b.floor, rs[i].AppliedAt)
		}
	}
	return b.floor
}

// OverAt is the instant from which the lease of cluster is surely over, if
// nothing renews it before.
func (b *Book) OverAt(cluster string) time.Duration {
	return b.Counted(cluster, 0) + b.wait
}

// SurelyOver is true when the agents of cluster surely hold no lease at now.
func (b *Book) SurelyOver(cluster string, now time.Duration) bool {
	return now >= b.OverAt(cluster)
}

// OverBeforeAt is the instant from which no grant is valid that could have
// named a role which the commit at fencingRevision took away. Only renewals
// applied at a lower revision count: a grant is computed from committed state
// at or after its renewal, so a later one cannot name the role. Unlike OverAt
// it does not move while the cluster goes on being renewed. A fencingRevision
// of 0 counts all renewals.
func (b *Book) OverBeforeAt(cluster string, fencingRevision int64) time.Duration {
	return b.Counted(cluster, fencingRevision) + b.wait
}

// OverBefore is true when OverBeforeAt has come.
func (b *Book) OverBefore(cluster string, fencingRevision int64, now time.Duration) bool {
	return now >= b.OverBeforeAt(cluster, fencingRevision)
}

// Clusters returns the names that were renewed since the start, unordered.
func (b *Book) Clusters() []string {
	names := make([]string, 0, len(b.renewals))
	for name := range b.renewals {
		names = append(names, name)
	}
	return names
}
