package hub

import (
	"context"
	"sync"

	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/term"
)

// leaderships tells the runner of leader work of each change of this member's
// leadership; what was not read when the next change came is dropped.
func (m *Member) leaderships(ctx context.Context) <-chan term.Leadership {
	out := make(chan term.Leadership, 1)
	go func() {
		defer close(out)
		for l := range m.store.Subscribe(ctx) {
			select {
			case <-out:
			default:
			}
			out <- term.Leadership{Term: l.Term, Leading: l.Leading} // this goroutine alone fills it
		}
	}()
	return out
}

// currentTerm is the term of this member's leadership.
func (m *Member) currentTerm() uint64 { return m.store.Leadership().Term }

// leaderName follows who leads, for heartbeats that look for the leader.
type leaderName struct {
	mu      sync.Mutex
	name    string
	changed chan struct{}
}

// Leader implements session.Leadership.
func (l *leaderName) Leader() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.name, l.changed
}

func (l *leaderName) set(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == l.name {
		return
	}
	l.name = name
	close(l.changed)
	l.changed = make(chan struct{})
}

// follow keeps the name current until ctx ends.
func (l *leaderName) follow(ctx context.Context, store *hubstore.Store) error {
	for leadership := range store.Subscribe(ctx) {
		l.set(leadership.Leader)
	}
	<-ctx.Done()
	return ctx.Err()
}
