package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// retryPause spaces attempts that failed without anything being proposed, so
// that a leader which is just being replaced is not asked in a tight loop.
const retryPause = 10 * time.Millisecond

// proposer puts commands into the log, on this member if it leads and else
// through the leader.
type proposer struct {
	self    string
	raft    *raft.Raft
	queue   *queue
	machine *machine
	leaders *leaderWatch
	peers   *peers
	space   *space
	timeout time.Duration
	limit   int
	metrics *metrics
	intro   *introduction
}

// propose returns when the command is applied, on this member too. A command
// that surely was not proposed is proposed again until time is up; one whose
// fate is unknown is not.
func (p *proposer) propose(ctx context.Context, op Op) (*Result, error) {
	data, err := p.encode(op)
	if err != nil {
		return nil, err
	}
	if len(data) > p.limit {
		return nil, ErrTooLarge
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, ErrTimeout)
	defer cancel()
	start := time.Now()
	for {
		result, proposed, err := p.attempt(ctx, data, op.command)
		if err == nil {
			p.metrics.proposals.WithLabelValues("applied").Inc()
			p.metrics.latency.Observe(time.Since(start).Seconds())
			return result, result.Err
		}
		if proposed || !retriable(err) {
			p.metrics.proposals.WithLabelValues(outcomeLabel(proposed)).Inc()
			return nil, err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			p.metrics.proposals.WithLabelValues("not_proposed").Inc()
			return nil, ErrNoLeader
		}
	}
}

// encode writes the command for the level that is in force here. It never falls,
// so the command stays good; a higher one that the leader may know is not needed.
func (p *proposer) encode(op Op) ([]byte, error) {
	return op.at(p.machine.level(), p.machine.incarnation.Load())
}

func outcomeLabel(proposed bool) string {
	if proposed {
		return "unknown"
	}
	return "not_proposed"
}

func retriable(err error) bool {
	return errors.Is(err, ErrNotLeader)
}

// attempt tries once. proposed tells whether the command may be in a log.
func (p *proposer) attempt(ctx context.Context, data []byte, command *raftlogv1.Command) (result *Result, proposed bool, err error) {
	if err := p.intro.leftBehind(); err != nil {
		return nil, false, err
	}
	leader, err := p.leaders.waitLeader(ctx, p.self)
	if err != nil {
		return nil, false, err
	}
	if leader.Leading {
		return p.local(ctx, data, command)
	}
	result, proposed, err = p.peers.propose(ctx, leader.Leader, data)
	if err != nil {
		return nil, proposed, err
	}
	// The caller's next serializable read or watch here sees its own write. If
	// its time runs out first the write has succeeded all the same.
	_ = p.machine.waitApplied(ctx, result.Index)
	return result, true, nil
}

// local proposes on this member only: command, of which data is the encoding, and
// nothing above the level in force. A member that knows of a raise before the
// leader has applied it tries again.
func (p *proposer) local(ctx context.Context, data []byte, command *raftlogv1.Command) (*Result, bool, error) {
	if wanted, level := versionOf(data), p.machine.level(); wanted > level {
		return nil, false, aboveLevel(wanted, level)
	}
	return p.append(ctx, data, command)
}

// append is local for what may be of the next level.
func (p *proposer) append(ctx context.Context, data []byte, command *raftlogv1.Command) (*Result, bool, error) {
	if err := p.intro.leftBehind(); err != nil {
		return nil, false, err
	}
	if err := p.admit(command); err != nil {
		return nil, false, err
	}
	deadline, _ := ctx.Deadline()
	var future raft.ApplyFuture
	err := p.queue.answer(ctx, func() raft.Future {
		future = p.raft.Apply(data, max(time.Until(deadline), time.Millisecond))
		return future
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, true, ended(ctx)
	case err != nil:
		return nil, p.mayBeProposed(err), p.explain(err)
	}
	result, ok := future.Response().(*Result)
	if !ok {
		return nil, true, fmt.Errorf("store: entry %d gave no result", future.Index())
	}
	if errors.Is(result.Err, ErrHalted) {
		return nil, true, ErrHalted
	}
	return result, true, nil
}

// admit refuses what there is no space for before it takes some in the log.
func (p *proposer) admit(command *raftlogv1.Command) error {
	if !p.space.short() && !p.machine.full.Load() {
		return nil
	}
	growing := grows(command)
	if growing && p.machine.full.Load() {
		return ErrNoSpace
	}
	return p.space.admit(growing)
}

// ended tells the caller's own cancellation from the store's time-out.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
		return ErrTimeout
	}
	return ctx.Err()
}

func (p *proposer) mayBeProposed(err error) bool {
	return !errors.Is(err, raft.ErrNotLeader) && !errors.Is(err, raft.ErrEnqueueTimeout) &&
		!errors.Is(err, raft.ErrLeadershipTransferInProgress) && !errors.Is(err, ErrStopped)
}

func (p *proposer) explain(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrTimeout
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return ErrOutcomeUnknown
	case errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, ErrStopped):
		return ErrStopped
	default:
		return fmt.Errorf("store: outcome unknown: %w", err)
	}
}

// renewal proposes a lease renewal on this member; it is never forwarded.
func (p *proposer) renewal(ctx context.Context, r *raftlogv1.LeaseRenewal) (RenewalApplied, error) {
	if l, _ := p.leaders.get(); !l.Leading {
		return RenewalApplied{}, ErrNotLeader
	}
	op := leaseRenewal(r)
	data, err := p.encode(op)
	if err != nil {
		return RenewalApplied{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, ErrTimeout)
	defer cancel()
	result, _, err := p.local(ctx, data, op.command)
	if err != nil {
		return RenewalApplied{}, fmt.Errorf("propose lease renewal: %w", err)
	}
	if result.Err != nil {
		return RenewalApplied{}, result.Err
	}
	return *result.Renewal, nil
}
