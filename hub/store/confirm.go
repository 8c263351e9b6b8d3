package store

import (
	"maps"
	"slices"
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
	// stored returns when an entry is on this member's disk, or with an error: see
	// early. No acknowledgement of entries is handed on before.
	stored func(index uint64, stop <-chan struct{}) error

	mu   sync.Mutex
	acks map[raft.ServerID]ack
	// back is closed when a heartbeat reaches a member that could not be reached.
	back map[raft.ServerID]chan struct{}
	// ended is closed when this member stops leading.
	ended chan struct{}
	// pipelines are open.
	pipelines map[*pipeline]struct{}
	down      bool
}

// pipeline is one of Raft's. Raft itself does not close it while it waits to send:
// when it no longer takes the answers, because it stops leading, and as many are
// under way as may be, it would wait for ever, and its Shutdown with it.
type pipeline struct {
	raft.AppendPipeline
	transport *confirmingTransport
	answers   chan raft.AppendFuture
	closed    chan struct{}
	once      sync.Once
	handing   sync.WaitGroup
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// handOn hands answers on when what they acknowledge is stored here too.
func (p *pipeline) handOn() {
	for {
		select {
		case <-p.closed:
			return
		case answer := <-p.AppendPipeline.Consumer():
			if p.transport.awaitStored(answer.Request(), p.closed) != nil {
				return // this member stops, or the pipeline is closed
			}
			select {
			case p.answers <- answer:
			case <-p.closed:
				return
			}
		}
	}
}

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.transport.mu.Lock()
	delete(p.transport.pipelines, p)
	p.transport.mu.Unlock()
	p.once.Do(func() { close(p.closed) })
	p.handing.Wait()
	return p.AppendPipeline.Close()
}

// awaitStored returns when the entries of an append are on this member's disk.
func (t *confirmingTransport) awaitStored(args *raft.AppendEntriesRequest, stop <-chan struct{}) error {
	if len(args.Entries) == 0 {
		return nil
	}
	return t.stored(args.Entries[len(args.Entries)-1].Index, stop)
}

// AppendEntriesPipeline implements raft.Transport.
func (t *confirmingTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, transport: t, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	t.mu.Lock()
	down := t.down
	if !down {
		t.pipelines[p] = struct{}{}
	}
	t.mu.Unlock()
	if down {
		_ = inner.Close()
		return nil, raft.ErrTransportShutdown
	}
	p.handing.Go(p.handOn)
	return p, nil
}

type ack struct {
	term uint64
	sent time.Time
}

func newConfirmingTransport(t *raft.NetworkTransport, stored func(uint64, <-chan struct{}) error) *confirmingTransport {
	return &confirmingTransport{
		NetworkTransport: t, stored: stored, acks: map[raft.ServerID]ack{},
		back: map[raft.ServerID]chan struct{}{}, ended: make(chan struct{}), pipelines: map[*pipeline]struct{}{},
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
	ended := t.note(id, args, resp, sent)
	return t.awaitStored(args, ended)
}

// note takes an answer into account, and returns what is closed when this member
// stops leading.
func (t *confirmingTransport) note(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Time) (ended <-chan struct{}) {
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
	return t.ended
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

// endWaits lets go of replication that waits: for members to come back, or for its
// pipeline.
func (t *confirmingTransport) endWaits() { t.end(false) }

// shut is endWaits for good.
func (t *confirmingTransport) shut() { t.end(true) }

func (t *confirmingTransport) end(down bool) {
	t.mu.Lock()
	if t.down {
		t.mu.Unlock()
		return
	}
	t.down = down
	close(t.ended)
	if !down {
		t.ended = make(chan struct{})
	}
	open := slices.Collect(maps.Keys(t.pipelines))
	t.mu.Unlock()
	for _, p := range open {
		_ = p.Close()
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
	return majority(servers, func(id raft.ServerID) bool {
		a := t.acks[id]
		return id == self || a.term == term && a.sent.After(since)
	})
}

// majority says whether more than half of the voters do.
func majority(servers []raft.Server, does func(raft.ServerID) bool) bool {
	voters, votes := 0, 0
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if does(server.ID) {
			votes++
		}
	}
	return votes > voters/2
}
