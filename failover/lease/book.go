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
	config   Config
	wait     time.Duration
	floor    time.Duration
	accounts map[string]*account

	steady   time.Duration // for how long the hub had been renewing at the newest renewal
	steadyAt time.Duration // when that was applied
	pace     pace
}

// NewBook starts an account at now: a member that has just started knows
// nothing of what was renewed before, so it counts every lease from its start.
func NewBook(c Config, now time.Duration) *Book {
	return &Book{config: c, wait: c.OverAfter(), floor: now, accounts: map[string]*account{}, pace: pace{since: now}}
}

// Restored says that the store's state was replaced by a snapshot at now. The
// renewals inside it were never applied one by one, so all leases count from
// now again.
func (b *Book) Restored(now time.Duration) {
	b.floor = max(b.floor, now)
	b.steady, b.steadyAt, b.pace = 0, now, pace{since: now}
	for _, a := range b.accounts {
		a.steady = 0 // who was renewed inside has no gap
	}
}

// Applied notes that a renewal of clusters was applied at revision, whose
// proposer had seen the hub renew steadily for so long; 0 for one that is
// replayed from the log, because it says nothing about the time since.
func (b *Book) Applied(clusters []string, revision int64, steady, now time.Duration) {
	b.pace.applied(steady, now, b.late(), b.config.Drift)
	b.steady, b.steadyAt = b.reckoned(steady, now), now
	for _, name := range clusters {
		a := b.accounts[name]
		if a == nil {
			a = &account{}
			b.accounts[name] = a
		}
		a.told(steady, b.wait, b.Prompt(now), now)
		a.applied(Renewal{Revision: revision, AppliedAt: now}, b.wait)
	}
}

// late is by how much a renewal may be applied later than another without being
// taken for a late one. The last ones of a dead leader are committed by the next, so
// it must be longer than an election, and Validate sees to that.
func (b *Book) late() time.Duration { return b.config.TTL / 2 }

// reckoned is for how long the hub has been renewing at now, when a renewal says that
// it was steady when that was proposed. The way of each renewal through the log
// would be lost from the count, if this member did not go on counting by itself.
func (b *Book) reckoned(steady, now time.Duration) time.Duration {
	own := b.Steady(now) - drifted(now-b.steadyAt, b.config.Drift)
	if steady == 0 || own-steady > b.late() {
		return steady
	}
	return max(steady, own)
}

// Steady is for how long, as far as this member knows, the hub has been renewing
// leases, if only nobody's, without a pause of a TTL.
func (b *Book) Steady(now time.Duration) time.Duration {
	since := now - b.steadyAt
	if since > b.config.TTL {
		return 0
	}
	return b.steady + since
}

// Prompt is for how long this member has applied every renewal about when it was
// proposed. What it applied before may be much older than it seems: a member that
// lagged, or has just started, does not see by its own account that a cluster was
// silent before, and must not conclude that none was.
func (b *Book) Prompt(now time.Duration) time.Duration { return now - b.pace.since }

// Last returns the newest renewal of a cluster since the book was started.
func (b *Book) Last(cluster string) (Renewal, bool) {
	return b.accounts[cluster].last(0)
}

// Lapsed is the instant of the newest renewal of a cluster after which its lease ran
// out, and it was renewed again, while the hub went on renewing others; false if
// that has not happened since the book was started. All members know it, so that the
// next leader does not forget whom the last one saw lost.
func (b *Book) Lapsed(cluster string) (time.Duration, bool) {
	a := b.accounts[cluster]
	if a == nil {
		return 0, false
	}
	return a.lapsed, a.ever
}

// Counted is the instant from which the lease of cluster is counted: when its
// newest renewal below revision was applied, of any revision if that is 0, or
// when the member started if it knows of none. Of a lease that is over it may be
// earlier than that, by a second or a thirty-second of the time since.
func (b *Book) Counted(cluster string, revision int64) time.Duration {
	if r, ok := b.accounts[cluster].last(revision); ok {
		return max(b.floor, r.AppliedAt)
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
	names := make([]string, 0, len(b.accounts))
	for name := range b.accounts {
		names = append(names, name)
	}
	return names
}
