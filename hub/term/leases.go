package term

import (
	"sync"
	"time"

	"tripod.dev/tripod/failover/lease"
)

// Leases is this member's account of all clusters' leases. It is fed by the
// store for every renewal applied or replayed, on every member, and is safe for
// concurrent use.
type Leases struct {
	clock Clock

	mu   sync.Mutex
	book *lease.Book
}

// NewLeases starts the account now. It must be made before the store applies
// anything.
func NewLeases(config lease.Config, clock Clock) *Leases {
	return &Leases{clock: clock, book: lease.NewBook(config, clock())}
}

// Renewed notes that a renewal of clusters was applied at revision; steady is
// what it said, 0 if it was replayed. It is called in log order, by the goroutine
// that applies, and does not block.
func (l *Leases) Renewed(clusters []string, revision int64, steady time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.Applied(clusters, revision, steady, l.clock())
}

// Restored notes that a snapshot replaced the store's state: all leases count
// from now.
func (l *Leases) Restored() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.Restored(l.clock())
}

// SurelyOver is true when no agent of cluster holds a lease now.
func (l *Leases) SurelyOver(cluster string) bool {
	over, _ := l.Fence(cluster, 0)
	return over
}

// OverBefore is true when no grant is valid now that could have named a role
// which the commit at fencingRevision took away.
func (l *Leases) OverBefore(cluster string, fencingRevision int64) bool {
	over, _ := l.Fence(cluster, fencingRevision)
	return over
}

// Fence answers both questions, 0 for the first: whether the leases that were
// renewed below revision are over, and how long ago the last of them was
// renewed, or this member started.
func (l *Leases) Fence(cluster string, revision int64) (over bool, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	return l.book.OverBefore(cluster, revision, now), now - l.book.Counted(cluster, revision)
}

// FenceIn is how long it takes until Fence says over, if no renewal below
// revision comes any more; 0 when it does already.
func (l *Leases) FenceIn(cluster string, revision int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.book.OverBeforeAt(cluster, revision)-l.clock())
}

// Steady is for how long the hub has been renewing leases without a pause of a
// TTL, as far as this member knows.
func (l *Leases) Steady() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Steady(l.clock())
}

// Prompt is for how long this member has applied every renewal about when it was
// proposed.
func (l *Leases) Prompt() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Prompt(l.clock())
}

// Lapsed is the age of the newest renewal of cluster after which its lease ran out
// and was renewed again while the hub renewed others; 0 if none is known.
func (l *Leases) Lapsed(cluster string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ever := l.book.Lapsed(cluster)
	if !ever {
		return 0
	}
	return l.clock() - at
}

// Last returns the newest renewal of cluster and its age; false when this member
// has applied none since it started.
func (l *Leases) Last(cluster string) (revision int64, age time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.book.Last(cluster)
	return r.Revision, l.clock() - r.AppliedAt, ok
}
