package lease

import (
	"cmp"
	"time"
)

// sentWindow is how many heartbeats a Holder remembers: far more than a TTL
// holds, because an answer older than a TTL is worthless.
const sentWindow = 64

// Stamp orders grants. The committed state of a hub never goes back within an
// incarnation, so a higher stamp is a newer account of the roles.
type Stamp struct {
	Incarnation uint64
	Term        uint64
	Revision    int64
}

// Compare returns -1, 0 or +1.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(
		cmp.Compare(s.Incarnation, o.Incarnation),
		cmp.Compare(s.Term, o.Term),
		cmp.Compare(s.Revision, o.Revision),
	)
}

// Verdict is what a Holder makes of a grant.
type Verdict int

// Verdicts. Only Accepted changes the roles.
const (
	Accepted Verdict = iota
	// RefusedIncarnation: the hub that answered is older than one this
	// cluster has seen.
	RefusedIncarnation
	// RefusedStale: a newer account of the roles is already held.
	RefusedStale
	// RefusedUnasked: no heartbeat of that number was sent, or so long ago
	// that it is forgotten.
	RefusedUnasked
	// RefusedLate: the deadline of the grant had passed when it came.
	RefusedLate
)

func (v Verdict) String() string {
	return [...]string{"Accepted", "RefusedIncarnation", "RefusedStale", "RefusedUnasked", "RefusedLate"}[v]
}

// Holder is the agent's side of the lease. It keeps the newest stamp and the
// deadline; the roles that belong to the newest stamp are the caller's. It is
// not safe for concurrent use.
type Holder struct {
	seen     uint64 // highest incarnation
	sent     map[uint64]time.Duration
	lastSeq  uint64
	stamp    Stamp // of the roles held
	deadline time.Duration
	held     bool
}

// NewHolder returns a holder without a lease. seen is the highest incarnation
// this cluster remembers; grants of an older one are refused.
func NewHolder(seen uint64) *Holder {
	return &Holder{seen: seen, sent: map[uint64]time.Duration{}}
}

// Ask numbers the next heartbeat, which is about to be sent at now. The same
// number goes to every hub member.
func (h *Holder) Ask(now time.Duration) uint64 {
	h.lastSeq++
	h.sent[h.lastSeq] = now
	if h.lastSeq > sentWindow {
		delete(h.sent, h.lastSeq-sentWindow)
	}
	return h.lastSeq
}

// Answer takes a grant for heartbeat seq that came at now. When it returns
// Accepted the roles of the grant replace those held before and are valid until
// Deadline; otherwise nothing changed, as if the answer had been lost.
//
// The deadline counts from when the agent asked, so a late answer cannot
// lengthen it. Within an incarnation it never shrinks, because the lease
// belongs to the cluster: the hub counts every renewal that it answered, and
// all that were accepted up to this stamp came before any commit that takes a
// role of this stamp away.
func (h *Holder) Answer(seq uint64, stamp Stamp, ttl, now time.Duration) Verdict {
	if stamp.Incarnation < h.seen {
		return RefusedIncarnation
	}
	asked, ok := h.sent[seq]
	switch {
	case !ok:
		return RefusedUnasked
	case h.held && stamp.Compare(h.stamp) < 0:
		return RefusedStale
	case now >= asked+ttl:
		return RefusedLate
	}
	if stamp.Incarnation > h.stamp.Incarnation {
		h.deadline = 0
	}
	h.seen = stamp.Incarnation
	h.stamp = stamp
	h.deadline = max(h.deadline, asked+ttl)
	h.held = true
	return Accepted
}

// Saw remembers the incarnation of a hub member that gave no grant yet, and is
// false when that member is older than what this cluster has seen.
func (h *Holder) Saw(incarnation uint64) bool {
	if incarnation < h.seen {
		return false
	}
	h.seen = incarnation
	return true
}

// Incarnation is the highest one seen.
func (h *Holder) Incarnation() uint64 { return h.seen }

// Stamp is that of the last accepted grant.
func (h *Holder) Stamp() Stamp { return h.stamp }

// Deadline is when the roles of the last accepted grant end, zero before the
// first one.
func (h *Holder) Deadline() time.Duration { return h.deadline }

// Holds is true while the roles of the last accepted grant are valid.
func (h *Holder) Holds(now time.Duration) bool {
	return h.held && now < h.deadline
}
