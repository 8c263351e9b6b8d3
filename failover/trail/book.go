// Package trail is the arithmetic of one question and nothing else: up to which
// instant does a copy of a dataset surely hold everything that was acknowledged?
//
// A primary that says where its log ends has acknowledged nothing before that which is
// not in front of that position. So a copy of the same lineage that has reached the
// position holds all that was acknowledged until the primary looked, whatever anybody's
// clock says: instants are those of the one process that was told both. Like
// failover/lease it is pure; an instant is a time.Duration since an arbitrary origin on
// a monotonic clock.
package trail

import (
	"slices"
	"time"
)

// kept bounds how many ends of the primary's log are remembered: ten minutes of
// heartbeats of a second. A copy that is further behind keeps the instant that was
// known before.
const kept = 600

// Mark is where a copy's log ends. Marks of different epochs or timelines say nothing
// about each other.
type Mark struct{ Epoch, Timeline, Position int64 }

func (m Mark) reaches(o Mark) bool {
	return m.Epoch == o.Epoch && m.Timeline == o.Timeline && m.Position >= o.Position
}

// Book is the account of one dataset. It is not safe for concurrent use.
type Book struct {
	wrote   []end // ascending in both fields, of one epoch and timeline
	reached map[string]Mark
	held    map[string]time.Duration
}

type end struct {
	Mark
	at time.Duration
}

// NewBook knows nothing.
func NewBook() *Book {
	return &Book{reached: map[string]Mark{}, held: map[string]time.Duration{}}
}

// Wrote notes that the running primary's log ended at m when it looked, which was not
// before at. One that goes back is late, and is left out.
func (b *Book) Wrote(m Mark, at time.Duration) {
	if n := len(b.wrote); n > 0 {
		last := &b.wrote[n-1]
		switch {
		case m.Epoch < last.Epoch:
			return
		case m.Epoch != last.Epoch || m.Timeline != last.Timeline:
			b.wrote = b.wrote[:0]
		case m.Position < last.Position || at < last.at:
			return
		case m.Position == last.Position:
			last.at = at
			b.settle(b.wrote[n-1])
			return
		}
	}
	if len(b.wrote) == kept {
		b.wrote = slices.Delete(b.wrote, 0, 1)
	}
	b.wrote = append(b.wrote, end{m, at})
	b.settle(b.wrote[len(b.wrote)-1])
}

// settle moves on the copies that had reached the newest end before it was told.
func (b *Book) settle(e end) {
	for name, m := range b.reached {
		if m.reaches(e.Mark) {
			b.hold(name, e.at)
		}
	}
}

// Reached notes that a copy that follows the primary had its log up to m.
func (b *Book) Reached(name string, m Mark) {
	b.reached[name] = m
	for _, e := range slices.Backward(b.wrote) {
		if m.reaches(e.Mark) {
			b.hold(name, e.at)
			return
		}
	}
}

func (b *Book) hold(name string, at time.Duration) {
	if old, known := b.held[name]; !known || at > old {
		b.held[name] = at
	}
}

// Held is the newest instant up to which a copy surely held everything that was
// acknowledged; false if none is known.
func (b *Book) Held(name string) (at time.Duration, known bool) {
	at, known = b.held[name]
	return at, known
}
