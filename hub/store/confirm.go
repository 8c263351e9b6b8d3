package store

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmingTransport notes when each append that a follower acknowledged was
// sent. raft.VerifyLeader counts an acknowledgement by when it arrives; one that
// was under way while this process stood still would confirm a leader that has
// been replaced since. See DESIGN.md, "Linearizable reads".
type confirmingTransport struct {
	*raft.NetworkTransport

	mu   sync.Mutex
	acks map[raft.ServerID]ack
	// back is closed when a heartbeat reaches a member that could not be reached.
	back map[raft.ServerID]chan struct{}
	// ended is closed when this member stops leading.
	ended chan struct{}
	down  bool
}

type ack struct {
	term uint64
	sent time.Time
}

func newConfirmingTransport(t *raft.NetworkTransport) *confirmingTransport {
	return &confirmingTransport{
		NetworkTransport: t, acks: map[raft.ServerID]ack{},
		back: map[raft.ServerID]chan struct{}{}, ended: make(chan struct{}),
	}
}

// AppendEntries implements raft.Transport. Raft waits up to 10 s between two
// attempts to replicate to a member that was away for long, while its heartbeats
// go on; so replication waits here instead until a heartbeat gets through.
func (t *confirmingTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.send(id, target, args, resp)
	if err == nil || isHeartbeat(args) {
		return err
	}
	if !t.awaitBack(id) {
		return err
	}
	return t.send(id, target, args, resp)
}

func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

func (t *confirmingTransport) send(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch, ok := t.back[id]; ok {
		close(ch)
		delete(t.back, id)
	}
	if resp.Success && resp.Term == args.Term {
		if last := t.acks[id]; args.Term > last.term || args.Term == last.term && sent.After(last.sent) {
			t.acks[id] = ack{term: args.Term, sent: sent}
		}
	}
	return nil
}

// awaitBack returns true when id is reached again, false when there is no more
// reason to wait.
func (t *confirmingTransport) awaitBack(id raft.ServerID) bool {
	t.mu.Lock()
	back, ok := t.back[id]
	if !ok {
		back = make(chan struct{})
		t.back[id] = back
	}
	ended := t.ended
	t.mu.Unlock()
	select {
	case <-back:
		return true
	case <-ended:
		return false
	}
}

// endWaits lets go of replication that waits for members to come back.
func (t *confirmingTransport) endWaits() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return
	}
	close(t.ended)
	t.ended = make(chan struct{})
}

// shut is endWaits for good.
func (t *confirmingTransport) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.down {
		t.down = true
		close(t.ended)
	}
}

// Close implements raft.WithClose; it also closes the connections to others.
func (t *confirmingTransport) Close() error {
	t.CloseStreams()
	return t.NetworkTransport.Close()
}

// confirmed says whether a majority of voters, self included, acknowledged term
// in answer to something that was sent after since.
func (t *confirmingTransport) confirmed(self raft.ServerID, servers []raft.Server, term uint64, since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, votes := 0, 0
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if a := t.acks[server.ID]; server.ID == self || a.term == term && a.sent.After(since) {
			votes++
		}
	}
	return votes > voters/2
}
