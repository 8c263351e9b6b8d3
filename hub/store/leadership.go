package store

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Leadership is what a member knows about who leads.
type Leadership struct {
	// Term of Raft.
	Term uint64
	// Leader is the name of the leading member; empty if none is known.
	Leader string
	// Leading is true while this member leads Term *and* has passed the barrier:
	// it has applied everything that any earlier leader acknowledged.
	Leading bool
}

// leaderWatch follows Raft's changes of leadership. When this member is elected
// it first passes a barrier, then makes its lessor the primary one, then tells.
type leaderWatch struct {
	self    string
	raft    *raft.Raft
	queue   *queue
	intro   *introduction
	machine *machine
	log     *slog.Logger
	// extend is added to every etcd lease by a new leader: the old one may have
	// renewed it without telling anybody.
	extend   time.Duration
	changes  <-chan bool
	observed chan raft.Observation
	propose  func(context.Context, Op) (*Result, error)
	// ended is called when this member stops leading, replaced with the name of a
	// leader when another is known in its place.
	ended    func()
	replaced func(string)

	// floor is the index of the applied state when the barrier of the present
	// term was passed.
	floor atomic.Uint64

	mu      sync.Mutex
	current Leadership
	// last is the last leader known.
	last        string
	subscribers map[chan Leadership]struct{}
	changed     chan struct{}
}

func newLeaderWatch(extend time.Duration, m *machine, changes <-chan bool, log *slog.Logger) *leaderWatch {
	return &leaderWatch{
		machine: m, log: log, extend: extend, changes: changes,
		observed: make(chan raft.Observation, 16), subscribers: map[chan Leadership]struct{}{},
		changed: make(chan struct{}),
	}
}

func (w *leaderWatch) run(ctx context.Context) {
	observer := raft.NewObserver(w.observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	w.raft.RegisterObserver(observer)
	defer w.raft.DeregisterObserver(observer)
	defer w.machine.lessor.Demote()
	w.publish(false)
	for {
		select {
		case <-ctx.Done():
			w.publish(false)
			return
		case <-w.observed:
			w.publish(w.leading())
		case elected := <-w.changes:
			if !elected {
				w.machine.lessor.Demote()
				w.ended()
				w.publish(false)
				continue
			}
			w.elected(ctx)
		}
	}
}

// greetPatience bounds how long the leader of a hub that has just started waits
// for a member that may know a newer incarnation.
const greetPatience = time.Second

func (w *leaderWatch) elected(ctx context.Context) {
	if err := w.knowsTheHub(ctx); err != nil {
		w.log.Error("leadership is not begun", "term", w.raft.CurrentTerm(), "error", err)
		return
	}
	if err := w.queue.answer(ctx, func() raft.Future { return w.raft.Barrier(0) }); err != nil {
		w.log.Info("leadership was lost before it began", "term", w.raft.CurrentTerm(), "error", err)
		return
	}
	if w.raft.State() != raft.Leader {
		return
	}
	w.floor.Store(w.machine.applied.Load())
	w.machine.lessor.Promote(w.extend)
	w.publish(true)
	if w.machine.incarnation.Load() == 0 {
		w.openFirstIncarnation(ctx)
	}
}

// knowsTheHub keeps members that were left behind, and come back together as a
// majority of what the hub was, from leading it for the moment until they hear so:
// in that moment they would grant roles that others have taken over. A leader
// begins only when it has reached, or failed to reach, every member since it
// started; one that has run for a while has, and waits for nothing.
func (w *leaderWatch) knowsTheHub(ctx context.Context) error {
	var others []string
	for _, server := range w.raft.GetConfiguration().Configuration().Servers {
		if string(server.ID) != w.self {
			others = append(others, string(server.ID))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, greetPatience)
	defer cancel()
	w.intro.awaitTried(ctx, others)
	return w.intro.leftBehind()
}

// openFirstIncarnation gives a new hub its identity. A failure is left to the
// next leader, which finds the incarnation still missing.
func (w *leaderWatch) openFirstIncarnation(ctx context.Context) {
	op := startIncarnation(&raftlogv1.StartIncarnation{Incarnation: 1, ClusterId: rand.Uint64() | 1, Reason: "bootstrap"})
	if _, err := w.propose(ctx, op); err != nil {
		w.log.Warn("first incarnation not opened", "error", err)
	}
}

func (w *leaderWatch) leading() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current.Leading && w.current.Term == w.raft.CurrentTerm() && w.raft.State() == raft.Leader
}

func (w *leaderWatch) publish(leading bool) {
	_, id := w.raft.LeaderWithID()
	next := Leadership{Term: w.raft.CurrentTerm(), Leader: string(id), Leading: leading}
	w.mu.Lock()
	defer w.mu.Unlock()
	if next == w.current {
		return
	}
	w.log.Info("leadership", "term", next.Term, "leader", next.Leader, "leading", next.Leading)
	if next.Leader != "" && w.last != "" && next.Leader != w.last {
		w.replaced(w.last)
	}
	if next.Leader != "" {
		w.last = next.Leader
	}
	w.current = next
	close(w.changed)
	w.changed = make(chan struct{})
	for ch := range w.subscribers {
		offer(ch, next)
	}
}

// offer replaces what a slow subscriber has not read yet.
func offer(ch chan Leadership, l Leadership) {
	for {
		select {
		case ch <- l:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}

// get returns the present leadership and a channel that is closed when it
// changes.
func (w *leaderWatch) get() (Leadership, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current, w.changed
}

// subscribe returns a channel that holds the newest leadership not yet read. It
// is closed when ctx is done.
func (w *leaderWatch) subscribe(ctx context.Context) <-chan Leadership {
	ch := make(chan Leadership, 1)
	w.mu.Lock()
	ch <- w.current
	w.subscribers[ch] = struct{}{}
	w.mu.Unlock()
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.subscribers, ch)
		close(ch)
	})
	return ch
}

// waitLeader returns when some member is known to lead and, if that is this
// member, is ready to.
func (w *leaderWatch) waitLeader(ctx context.Context, self string) (Leadership, error) {
	for {
		l, changed := w.get()
		if l.Leading || l.Leader != "" && l.Leader != self {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return l, ErrNoLeader
		}
	}
}
