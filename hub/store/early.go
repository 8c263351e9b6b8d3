package store

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// early lets a leader send its entries to the others while it writes them to its own
// disk. hashicorp/raft writes first and sends then, so that a client waits for two
// syncs one after the other. Ongaro (section 10.2.1) has them side by side; the
// leader counts when its own is done.
//
// Raft counts a leader as soon as its log has taken the entries. So that it is right
// in that, what the others acknowledge is held back until the entries are on this
// disk too (confirmingTransport): as before, an entry is committed when a majority
// has synced it that includes the leader, and nobody hears of it sooner.
//
// A member that stops leading may have entries in memory only. It writes them before
// it acknowledges them to another leader; see recentLog.GetLog.
type early struct {
	// standing is nil until Raft has started.
	standing atomic.Pointer[standing]
	// first is the first entry that is not on disk; 0 if all are.
	first atomic.Uint64

	mu  sync.Mutex
	err error
	// written is closed when the present write has ended; nil if there is none.
	written chan struct{}
}

var errNotWaited = errors.New("store: no longer waiting for the Raft log to be written")

// standing is how this member stands in its hub. Only raft's main goroutine, which
// also stores entries, changes whether it leads.
type standing struct {
	leads  func() bool
	voters func() int
}

func standingOf(r *raft.Raft) *standing {
	return &standing{
		leads: func() bool { return r.State() == raft.Leader },
		voters: func() int {
			_, voters := place("", r.GetConfiguration().Configuration().Servers)
			return voters
		},
	}
}

func (e *early) leads() bool {
	s := e.standing.Load()
	return s != nil && s.leads()
}

// may says whether entries may be stored early: not if this member is a majority by
// itself, for then nobody's acknowledgement can be held back, and not those that
// change who is.
func (e *early) may(entries []*raft.Log) bool {
	if !e.leads() || e.standing.Load().voters() < 2 {
		return false
	}
	return !slices.ContainsFunc(entries, func(entry *raft.Log) bool { return entry.Type == raft.LogConfiguration })
}

// store takes the entries that follow and returns while they are written. It waits
// for those before: meanwhile raft gathers what comes, so that syncs and messages
// are no more than without it. After an error it takes nothing more.
func (e *early) store(entries []*raft.Log, write func([]*raft.Log) error) error {
	if err := e.flush(); err != nil {
		return err
	}
	own := make([]*raft.Log, len(entries)) // raft's are a part of the clients' futures
	for i, entry := range entries {
		c := *entry
		own[i] = &c
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.written = make(chan struct{})
	e.first.Store(entries[0].Index)
	// Whoever closes the log waits for this with flush.
	go func() {
		err := write(own)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.err = err; err == nil {
			e.first.Store(0)
		}
		close(e.written)
		e.written = nil
	}()
	return nil
}

// await returns when the entry at index is on disk, or an error if it will not be, or
// stop is closed; nil is never.
func (e *early) await(index uint64, stop <-chan struct{}) error {
	for {
		if first := e.first.Load(); first == 0 || index < first {
			return nil
		}
		e.mu.Lock()
		written, err := e.written, e.err
		e.mu.Unlock()
		if err != nil {
			return err
		}
		if written == nil {
			continue // it has ended since
		}
		select {
		case <-written:
		case <-stop:
			return errNotWaited
		}
	}
}

// flush returns when everything that was taken is on disk.
func (e *early) flush() error { return e.await(^uint64(0), nil) }
