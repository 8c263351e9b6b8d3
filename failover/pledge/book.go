package pledge

import (
	"time"

	"tripod.dev/tripod/failover/lease"
)

// Request is what a primary's agent asks for one dataset.
type Request struct {
	Incarnation uint64
	Epoch       int64
	// For is the TTL that the primary counts.
	For time.Duration
}

// Verdict is what a Book makes of a request.
type Verdict int

// Verdicts. Only Pledged promises anything.
const (
	Pledged Verdict = iota
	// RefusedIncarnation: a newer hub has granted or ordered something here,
	// and decides without regard to what the older one granted.
	RefusedIncarnation
	// RefusedEpoch: a newer epoch of the dataset was seen.
	RefusedEpoch
	// RefusedLong: the primary counts longer than this side would wait after
	// it has just become active.
	RefusedLong
)

func (v Verdict) String() string {
	return [...]string{"Pledged", "RefusedIncarnation", "RefusedEpoch", "RefusedLong"}[v]
}

// Book is the pledger's side for all datasets of a cluster: what the active
// replica of its agent has promised. Only the active replica may have one, from
// when it became active until it no longer is. It is not safe for concurrent
// use.
type Book struct {
	config      lease.Config
	floor       time.Duration
	incarnation uint64
	datasets    map[string]*promise
}

// promise is one dataset's.
type promise struct {
	epoch int64         // highest seen
	until time.Duration // of the last pledge
}

// NewBook starts at now: a replica that has just become active knows nothing of
// what the one before it has promised, so it counts a pledge for every dataset
// from its start.
func NewBook(c lease.Config, now time.Duration) *Book {
	return &Book{config: c, floor: now + c.OverAfter(), datasets: map[string]*promise{}}
}

func (b *Book) promise(dataset string) *promise {
	if b.datasets[dataset] == nil {
		b.datasets[dataset] = &promise{}
	}
	return b.datasets[dataset]
}

// Granted notes the incarnation of a grant or a directive. A hub that only says
// hello has decided nothing: one that is sealed after a restore must not stop
// the primaries.
func (b *Book) Granted(incarnation uint64) { b.incarnation = max(b.incarnation, incarnation) }

// Saw notes a committed epoch: older ones get no more pledges. It must be called
// before a promotion at that epoch is considered, and for every epoch that is
// durable in the cluster before the first request: what the replica before this
// one has acknowledged binds this one.
func (b *Book) Saw(dataset string, epoch int64) {
	p := b.promise(dataset)
	p.epoch = max(p.epoch, epoch)
}

// Ask gives a pledge at now or refuses. A refusal takes no earlier pledge back.
func (b *Book) Ask(dataset string, r Request, now time.Duration) Verdict {
	p := b.promise(dataset)
	switch {
	case r.Incarnation < b.incarnation:
		return RefusedIncarnation
	case r.Epoch < p.epoch:
		return RefusedEpoch
	case r.For > b.config.TTL:
		return RefusedLong
	}
	p.until = max(p.until, now+b.config.OverAfter())
	return Pledged
}

// FreeAt is the instant from which a promotion of the dataset may be accepted, if
// no further pledge is given.
func (b *Book) FreeAt(dataset string) time.Duration {
	if p := b.datasets[dataset]; p != nil {
		return max(b.floor, p.until)
	}
	return b.floor
}

// Free is true when every pledge that this cluster gave is surely over at the
// primary. Only then may it accept a promotion, or acknowledge a newer epoch
// on which somebody else is promoted.
func (b *Book) Free(dataset string, now time.Duration) bool { return now >= b.FreeAt(dataset) }
