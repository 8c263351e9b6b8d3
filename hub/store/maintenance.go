package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// nothing is a revision that is compacted in every state of mvcc.
const nothing = -1

// compactionPoll spaces the questions whether compactions are done.
const compactionPoll = time.Second

// Maintenance looks after the local database file.
type Maintenance struct{ store *Store }

// Size returns the size of the file and the part of it in use, in bytes.
func (m *Maintenance) Size() (size, used int64) {
	m.store.machine.use(func(b backend.Backend) { size, used = b.Size(), b.SizeInUse() })
	return size, used
}

// Hashes gives the hashes by which members are compared.
func (m *Maintenance) Hashes() mvcc.HashStorage { return m.store.machine.kv.HashStorage() }

// Copy pins the present state of the file: size bytes that write gives out. The
// caller must call release. Until then the file is not defragmented.
func (m *Maintenance) Copy() (size int64, write func(io.Writer) (int64, error), release func() error) {
	copying := &m.store.machine.copying
	copying.RLock()
	var snap backend.Snapshot
	m.store.machine.use(func(b backend.Backend) { snap = b.Snapshot() })
	return snap.Size(), snap.WriteTo, sync.OnceValue(func() error {
		defer copying.RUnlock()
		return snap.Close()
	})
}

// Compact drops superseded revisions but for those of the last keep revisions, and
// returns the revision up to which they are dropped. The space is free on this
// member when it returns.
func (m *Maintenance) Compact(ctx context.Context, keep int64) (int64, error) {
	if err := m.store.Linearize(ctx); err != nil {
		return 0, err
	}
	revision := m.store.Revision() - max(keep, 0)
	if compacted := m.store.machine.kv.FirstRev(); revision <= compacted {
		return compacted, nil
	}
	result, err := m.store.Propose(ctx, Compact(&pb.CompactionRequest{Revision: revision, Physical: true}))
	if errors.Is(err, mvcc.ErrCompacted) {
		return m.store.machine.kv.FirstRev(), nil // somebody else was faster
	}
	if err != nil {
		return 0, fmt.Errorf("compact to revision %d: %w", revision, err)
	}
	return revision, m.Compacted(ctx, result)
}

// Compacted waits until this member has applied the compaction that gave result
// and has freed the space of it and of all before it, and makes that durable.
func (m *Maintenance) Compacted(ctx context.Context, result *Result) error {
	if err := m.store.machine.waitApplied(ctx, result.Index); err != nil {
		return err
	}
	again := time.NewTicker(compactionPoll)
	defer again.Stop()
	for {
		// A compaction of nothing frees nothing, and is done in its turn.
		done, _ := m.store.machine.kv.Compact(traceutil.TODO(), nothing)
		select {
		case <-done:
			m.store.machine.use(func(b backend.Backend) { b.ForceCommit() })
			return nil
		case <-again.C:
			// A restored snapshot drops those that wait in mvcc's queue.
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Alarms lists what is wrong with this member in words; empty if nothing is.
func (m *Maintenance) Alarms() []string {
	var out []string
	if err := m.store.space.check(m.store.space.reserve); err != nil {
		out = append(out, err.Error())
	}
	if m.store.machine.full.Load() || m.store.space.over() {
		out = append(out, m.store.space.overText())
	}
	if err := m.store.intro.leftBehind(); err != nil {
		out = append(out, err.Error())
	}
	if differ := m.store.auditor.alarm.Load(); differ != nil {
		out = append(out, *differ)
	}
	return out
}

// Differs says whether this member's data are not those of another member, and no
// majority tells which are right.
func (m *Maintenance) Differs() bool { return m.store.auditor.alarm.Load() != nil }

// Snapshot makes Raft write a snapshot now and drop the log before it.
func (m *Maintenance) Snapshot() error {
	if err := m.store.raft.Snapshot().Error(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}
