package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/etcd/pkg/v3/wait"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3alarm"
	"go.etcd.io/etcd/server/v3/etcdserver/cindex"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
)

// keys of this store in etcd's meta bucket, beside the consistent index.
var (
	incarnationKey = []byte("tripodIncarnation")
	clusterIDKey   = []byte("tripodClusterID")
)

// machine is the replicated state machine: etcd's mvcc store and lessor over
// one bbolt file. Only Raft's apply goroutine writes to it.
//
// The index of the last applied entry is saved in the same bbolt transaction as
// its effects: the hook that etcd calls after locking the transaction moves the
// index forward, and the hook before a commit writes it. So after a crash the
// file holds the effects of exactly the entries up to its index.
type machine struct {
	// readers are those who read the database beside the log.
	readers   gate
	log       *slog.Logger
	zap       *zap.Logger
	path      string
	onRenewal func(RenewalApplied)
	onRestore func()
	metrics   *metrics
	fail      Failpoints
	// member is this member's name, understands the highest level of the command
	// set that it may apply.
	member      string
	understands uint32

	index  cindex.ConsistentIndexer
	hooks  backend.Hooks
	kv     mvcc.WatchableKV
	lessor lease.Lessor
	// alarms are the committed ones; full is true while one says NOSPACE.
	alarms atomic.Pointer[v3alarm.AlarmStore]
	full   atomic.Bool

	// mu guards be, which a snapshot replaces. Held for reading while be is used.
	mu      sync.RWMutex
	be      backend.Backend
	closing sync.WaitGroup
	// copying is held for reading while the file is copied, however long that
	// takes, and for writing while it is rewritten, which never waits for it.
	copying sync.RWMutex

	applied     atomic.Uint64
	progress    wait.WaitTime
	incarnation atomic.Uint64
	clusterID   atomic.Uint64
	levels      atomic.Pointer[levels]

	// replayed is the last entry that was in the log at the start.
	replayed uint64

	halted  atomic.Bool
	haltErr chan error
}

// etcdVersion tells the lessor which of its formats to write: 3.6 persists the
// remaining time of leases.
type etcdVersion struct{}

func (etcdVersion) Version() *semver.Version { return semver.New(EtcdVersion) }

func openMachine(cfg Config, m *metrics) (*machine, error) {
	path := filepath.Join(cfg.DataDir, "db")
	if err := removeLeftovers(path); err != nil {
		return nil, err
	}
	s := &machine{
		log:       cfg.Logger,
		zap:       zapTo(cfg.Logger),
		path:      path,
		onRenewal: cfg.OnRenewal,
		onRestore: cfg.OnRestore,
		metrics:   m,
		fail:      cfg.Fail,
		member:    cfg.Name, understands: cfg.Understands,
		progress: wait.NewTimeList(),
		haltErr:  make(chan error, 1),
	}
	s.index = cindex.NewConsistentIndex(nil)
	s.hooks = s.commitHooks()
	if err := checkFile(path); err != nil {
		return nil, err
	}
	if err := withoutPanic(func() error { return s.open(cfg) }); err != nil {
		return nil, fmt.Errorf("store: open the database %s: %w: %s", path, err, startAfresh)
	}
	if err := s.loadMeta(); err != nil {
		return nil, errors.Join(fmt.Errorf("store: refusing to start: %w", err), s.close())
	}
	return s, nil
}

// open reads the database into memory; etcd's packages panic if it makes no sense.
func (s *machine) open(cfg Config) error {
	s.be = s.openBackend()
	s.index.SetBackend(s.be)
	s.applied.Store(s.index.ConsistentIndex())
	s.lessor = lease.NewLessor(s.zap, s.be, etcdVersion{}, lease.LessorConfig{
		MinLeaseTTL:        minLeaseTTL(cfg.Timing),
		CheckpointInterval: cfg.LeaseCheckpoint,
		CheckpointPersist:  true,
	})
	s.kv = mvcc.New(s.zap, s.be, s.lessor, mvcc.StoreConfig{})
	s.be.SetTxPostLockInsideApplyHook(s.entering)
	return s.loadAlarms(s.be)
}

// commitHooks write the applied index with its effects.
func (s *machine) commitHooks() backend.Hooks {
	hooks := storage.NewBackendHooks(s.zap, s.index)
	if s.fail == nil {
		return hooks
	}
	return backend.NewHooks(func(tx backend.UnsafeReadWriter) {
		if err := s.fail.At(BeforeCommit); err != nil {
			s.zap.Fatal("failed to commit tx", zap.Error(err)) // as etcd's backend does
		}
		hooks.OnPreCommitUnsafe(tx)
	})
}

// minLeaseTTL is etcd's rule: a lease outlives one and a half elections.
func minLeaseTTL(t Timing) int64 {
	seconds := (3*t.Election/2 + time.Second - 1) / time.Second
	return max(int64(seconds), 1)
}

// The database is committed after this time or as many changes. Nothing is lost if it
// is not, because the log is synced with every entry and read again from the last commit;
// but no entry is applied during a commit, which syncs twice, and a reader copies what is
// not committed yet. etcd's 100 ms and 10,000 changes keep a slow disk busy with little
// else (decision 0017).
const (
	commitEvery  = time.Second
	commitBeyond = 1000
)

func (s *machine) openBackend() backend.Backend {
	c := backend.DefaultBackendConfig(s.zap)
	c.Path = s.path
	c.Hooks = s.hooks
	c.BatchInterval, c.BatchLimit = commitEvery, commitBeyond
	return backend.New(c)
}

// entering runs whenever applying an entry has locked the transaction that its
// effects go into.
func (s *machine) entering() {
	index, term := s.index.ConsistentApplyingIndex()
	if index > s.index.UnsafeConsistentIndex() {
		s.index.SetConsistentIndex(index, term)
	}
}

// loadMeta reads what lies beside the keys. It fails when this member's program
// does not understand the level that the data are of.
func (s *machine) loadMeta() error {
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	raised, err := readLevels(tx)
	if err == nil {
		err = s.understood(raised, "the data in "+s.path)
	}
	if err != nil {
		return err
	}
	s.levels.Store(&raised)
	s.incarnation.Store(readUint64(tx, incarnationKey))
	s.clusterID.Store(readUint64(tx, clusterIDKey))
	return nil
}

// lineage is the history that the state belongs to.
func (s *machine) lineage() lineage { return lineage{s.clusterID.Load(), s.incarnation.Load()} }

func readUint64(tx backend.UnsafeReader, key []byte) uint64 {
	_, values := tx.UnsafeRange(schema.Meta, key, nil, 0)
	if len(values) == 0 || len(values[0]) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(values[0])
}

// waitApplied returns when the entry at index is applied here.
func (s *machine) waitApplied(ctx context.Context, index uint64) error {
	if s.applied.Load() >= index {
		return nil
	}
	select {
	case <-s.progress.Wait(index):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *machine) advanced(index uint64) {
	if index > s.applied.Load() {
		s.applied.Store(index)
	}
	s.progress.Trigger(s.applied.Load())
}

// halt stops applying for good: going on would make this member differ from
// the others. Run returns err.
func (s *machine) halt(err error) {
	if s.halted.CompareAndSwap(false, true) {
		s.haltErr <- err
	}
}

// use calls f with the backend, which is not replaced meanwhile.
func (s *machine) use(f func(backend.Backend)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(s.be)
}

// close flushes the state to disk. Nothing may be applied any more.
func (s *machine) close() error {
	s.readers.close()
	s.lessor.Stop()
	s.kv.Commit()
	err := s.kv.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.be.Close(); err == nil {
		err = e
	}
	s.closing.Wait()
	if err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// removeLeftovers removes what a crash left of a snapshot that was received or of a
// file that was rewritten: neither was in the database's place.
func removeLeftovers(path string) error {
	for _, pattern := range []string{path + ".restore-*", path + ".tmp.*"} {
		leftovers, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("list %s: %w", pattern, err)
		}
		for _, f := range leftovers {
			if err := os.Remove(f); err != nil {
				return fmt.Errorf("remove a half-written database: %w", err)
			}
		}
	}
	return nil
}
