package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ballots stands between the transport and Raft and has a follower vote by its log
// alone once it has not heard the leader for a heartbeat time-out, which is what Raft
// asks for (Ongaro, section 4.2.3).
//
// A follower of hashicorp/raft speaks for the leader until it stands itself. So the
// slowest of a majority decided when there was a new leader; and if its log was the
// shorter one, the others had used up their turns and an election time-out passed.
// With ballots the first whose turn it is wins, or the next one.
type ballots struct {
	transport
	heartbeat time.Duration
	raft      atomic.Pointer[raft.Raft] // nil until Raft has started
	calls     chan raft.RPC
	stop      context.CancelFunc
	passing   sync.WaitGroup
}

// transport is what Raft looks for in its transport.
type transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

func newBallots(t transport, heartbeat time.Duration) *ballots {
	ctx, stop := context.WithCancel(context.Background())
	b := &ballots{transport: t, heartbeat: heartbeat, calls: make(chan raft.RPC), stop: stop}
	b.passing.Go(func() { b.pass(ctx) })
	return b
}

// Consumer implements raft.Transport.
func (b *ballots) Consumer() <-chan raft.RPC { return b.calls }

// Close implements raft.WithClose.
func (b *ballots) Close() error {
	b.stop()
	b.passing.Wait()
	return b.transport.Close()
}

func (b *ballots) pass(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case call := <-b.transport.Consumer():
			call.Command = b.freed(call.Command)
			select {
			case b.calls <- call:
			case <-ctx.Done():
				return // who asks learns it from the transport
			}
		}
	}
}

// freed is what Raft is asked. A request for a vote is freed of the refusal "we have
// a leader", and of nothing else, when this follower no longer hears that leader.
func (b *ballots) freed(command any) any {
	switch request := command.(type) {
	case *raft.RequestPreVoteRequest:
		if leader := b.silentLeader(); leader != "" {
			asked := *request
			asked.Addr = []byte(leader) // Raft uses it for this refusal alone, and reads the candidate from the ID
			return &asked
		}
	case *raft.RequestVoteRequest:
		if b.silentLeader() != "" {
			asked := *request
			asked.LeadershipTransfer = true
			return &asked
		}
	}
	return command
}

// silentLeader is the leader that this member follows and has not heard for a
// heartbeat time-out; otherwise empty.
func (b *ballots) silentLeader() raft.ServerAddress {
	r := b.raft.Load()
	if r == nil || r.State() != raft.Follower {
		return ""
	}
	if heard := r.LastContact(); heard.IsZero() || time.Since(heard) < b.heartbeat {
		return ""
	}
	leader, _ := r.LeaderWithID()
	return leader
}
