package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// How a read was confirmed, in metrics.
const (
	byFollowers = "followers"
	byAsker     = "asker"
)

// reader confirms linearizable reads. All reads that arrive while one
// confirmation is under way share the next one.
type reader struct {
	self      raft.ServerID
	raft      *raft.Raft
	queue     *queue
	logs      raft.LogStore
	machine   *machine
	leaders   *leaderWatch
	peers     *peers
	transport *confirmingTransport
	timeout   time.Duration
	metrics   *metrics

	mu      sync.Mutex
	waiting []chan confirmation
	wake    chan struct{}
}

type confirmation struct {
	index uint64
	err   error
}

func newReader() *reader { return &reader{wake: make(chan struct{}, 1)} }

// linearize returns when the local state includes every write acknowledged by
// any member before the call.
func (r *reader) linearize(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, ErrTimeout)
	defer cancel()
	index, err := r.readIndex(ctx)
	if err != nil {
		return err
	}
	if err := r.machine.waitApplied(ctx, index); err != nil {
		return ended(ctx)
	}
	return nil
}

// readIndex joins the next confirmation.
func (r *reader) readIndex(ctx context.Context) (uint64, error) {
	answer := make(chan confirmation, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, answer)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case c := <-answer:
		return c.index, c.err
	case <-ctx.Done():
		return 0, ended(ctx)
	}
}

func (r *reader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			r.answer(r.take(), confirmation{err: ErrStopped})
			return
		case <-r.wake:
		}
		batch := r.take()
		if len(batch) == 0 {
			continue
		}
		r.metrics.reads.Observe(float64(len(batch)))
		index, err := r.confirm(ctx)
		r.answer(batch, confirmation{index, err})
	}
}

func (r *reader) take() []chan confirmation {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := r.waiting
	r.waiting = nil
	return batch
}

func (r *reader) answer(batch []chan confirmation, c confirmation) {
	for _, ch := range batch {
		ch <- c
	}
}

// confirm asks whoever leads, again after a change of leader: a read may be
// repeated.
func (r *reader) confirm(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, ErrTimeout)
	defer cancel()
	for {
		leader, err := r.leaders.waitLeader(ctx, string(r.self))
		if err != nil {
			return 0, err
		}
		var index uint64
		var ok bool
		if leader.Leading {
			index, ok = r.lead(ctx)
		} else {
			index, ok = r.peers.readIndex(ctx, leader.Leader, r.allegiance())
		}
		if ok {
			return index, nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return 0, ended(ctx)
		}
	}
}

// lead confirms on the leader: the commit index now, proven by a majority that
// still followed this term after now.
func (r *reader) lead(ctx context.Context) (uint64, bool) {
	l, _ := r.leaders.get()
	if !l.Leading {
		return 0, false
	}
	since := time.Now()
	commit := r.raft.CommitIndex()
	servers := r.raft.GetConfiguration().Configuration().Servers
	for {
		if err := r.queue.answer(ctx, func() raft.Future { return r.raft.VerifyLeader() }); err != nil {
			return 0, false
		}
		if r.raft.CurrentTerm() != l.Term {
			return 0, false
		}
		if r.transport.confirmed(r.self, servers, l.Term, since) {
			r.metrics.confirmations.WithLabelValues(byFollowers).Inc()
			return r.visible(commit), true
		}
		if ctx.Err() != nil {
			return 0, false
		}
	}
}

// allegiance is what this member follows now.
func (r *reader) allegiance() *raftlogv1.Allegiance {
	history := r.machine.lineage()
	return &raftlogv1.Allegiance{
		Member: string(r.self), Term: r.raft.CurrentTerm(), ClusterId: history.clusterID, Incarnation: history.incarnation,
	}
}

// vouched confirms on the leader by the word of the member that asks, where the two are a
// majority: nobody else needs to be asked then. See DESIGN.md, "Linearizable reads".
func (r *reader) vouched(by *raftlogv1.Allegiance) (uint64, bool) {
	l, _ := r.leaders.get()
	if !l.Leading {
		return 0, false
	}
	commit := r.raft.CommitIndex()
	servers := r.raft.GetConfiguration().Configuration().Servers
	if !suffices(by, r.self, servers, l.Term, r.machine.lineage()) || r.raft.CurrentTerm() != l.Term {
		return 0, false
	}
	r.metrics.confirmations.WithLabelValues(byAsker).Inc()
	return r.visible(commit), true
}

// suffices says whether self, which leads term, and a member that follows it are a
// majority of the voters.
func suffices(by *raftlogv1.Allegiance, self raft.ServerID, servers []raft.Server, term uint64, history lineage) bool {
	if by.GetTerm() != term || (lineage{by.GetClusterId(), by.GetIncarnation()}) != history {
		return false
	}
	return majority(servers, func(id raft.ServerID) bool { return id == self || string(id) == by.GetMember() })
}

// visible is the last entry up to index that the state machine gets to see. Raft
// keeps no-ops and barriers to itself, so no machine would ever reach their
// index. At the floor the barrier of this term vouches for everything before.
func (r *reader) visible(index uint64) uint64 {
	floor := r.leaders.floor.Load()
	for ; index > floor; index-- {
		var entry raft.Log
		if err := r.logs.GetLog(index, &entry); err != nil {
			return floor
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return index
		}
	}
	return floor
}

// verify fails unless this member leads now.
func (r *reader) verify(ctx context.Context) error {
	if _, ok := r.lead(ctx); !ok {
		return fmt.Errorf("verify leadership: %w", ErrNotLeader)
	}
	return nil
}
