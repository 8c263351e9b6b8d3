package store

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// recentBytes is how much of the log's end is kept in memory, for replication and
// for the confirmation of reads; entryBytes is what an entry takes beside its data.
const (
	recentBytes = 4 << 20
	entryBytes  = 128
)

// recentLog keeps the newest entries of the log in memory. raft.LogCache would keep
// what raft hands it, on the leader a part of the future whose answer the client
// waited for, and so every answer as long as its entry; and it counts entries, of
// which one may have a megabyte. Here copies are kept, up to a number of bytes.
//
// What is not on disk yet (early.go) is always kept.
type recentLog struct {
	*guardedLog
	limit int
	early early

	mu      sync.RWMutex
	entries []raft.Log // the end of the log, ascending and without gaps
	bytes   int
}

func newRecentLog(log *guardedLog, limit int) *recentLog {
	return &recentLog{guardedLog: log, limit: limit}
}

// GetLog implements raft.LogStore. Only a leader gets what is not on disk yet: what
// a follower finds in its log it acknowledges.
func (r *recentLog) GetLog(index uint64, into *raft.Log) error {
	if !r.early.leads() {
		if err := r.early.await(index, nil); err != nil {
			return err
		}
	}
	r.mu.RLock()
	if n := uint64(len(r.entries)); n > 0 && index >= r.entries[0].Index && index-r.entries[0].Index < n {
		*into = r.entries[index-r.entries[0].Index]
		r.mu.RUnlock()
		return nil
	}
	r.mu.RUnlock()
	return r.guardedLog.GetLog(index, into)
}

// StoreLog implements raft.LogStore.
func (r *recentLog) StoreLog(entry *raft.Log) error { return r.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore: the entries are on disk when it returns, or,
// while this member leads others, will be before anybody is counted who has them;
// see early.
func (r *recentLog) StoreLogs(entries []*raft.Log) error {
	if err := r.guardedLog.admit(entries); err != nil {
		return err
	}
	if err := r.store(entries); err != nil {
		return err
	}
	r.remember(entries)
	return nil
}

func (r *recentLog) store(entries []*raft.Log) error {
	if r.early.may(entries) {
		return r.early.store(entries, r.guardedLog.write)
	}
	if err := r.early.flush(); err != nil {
		return err
	}
	return r.guardedLog.write(entries)
}

func (r *recentLog) remember(entries []*raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if n := len(r.entries); n > 0 && r.entries[n-1].Index+1 != e.Index {
			r.entries, r.bytes = nil, 0
		}
		r.entries = append(r.entries, *e)
		r.bytes += size(e)
	}
	r.forget(func() bool { return r.bytes > r.limit })
}

// forget drops entries from the beginning as long as it is due, and none that is not
// on disk.
func (r *recentLog) forget(due func() bool) {
	first, waiting := 0, r.early.first.Load()
	for ; first < len(r.entries) && due() && (waiting == 0 || r.entries[first].Index < waiting); first++ {
		r.bytes -= size(&r.entries[first])
		r.entries[first] = raft.Log{}
	}
	if r.entries = r.entries[first:]; len(r.entries) == 0 {
		r.entries = nil
	}
}

// DeleteRange implements raft.LogStore. A deleted end is rare and a deleted
// beginning is mostly not in memory: nothing is worth keeping.
func (r *recentLog) DeleteRange(from, to uint64) error {
	if err := r.early.await(to, nil); err != nil {
		return err
	}
	r.mu.Lock()
	r.forget(func() bool { return true })
	r.mu.Unlock()
	if err := r.guardedLog.DeleteRange(from, to); err != nil {
		return fmt.Errorf("store: delete entries %d to %d of the Raft log: %w", from, to, err)
	}
	return nil
}

func size(e *raft.Log) int { return len(e.Data) + len(e.Extensions) + entryBytes }
