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
}

type ack struct {
	term uint64
	sent time.Time
}

func newConfirmingTransport(t *raft.NetworkTransport) *confirmingTransport {
	return &confirmingTransport{NetworkTransport: t, acks: map[raft.ServerID]ack{}}
}

// AppendEntries implements raft.Transport; heartbeats come through here.
func (t *confirmingTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	if resp.Success && resp.Term == args.Term {
		t.mu.Lock()
		if last := t.acks[id]; args.Term > last.term || args.Term == last.term && sent.After(last.sent) {
			t.acks[id] = ack{term: args.Term, sent: sent}
		}
		t.mu.Unlock()
	}
	return nil
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
