package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// A snapshot is the magic, the length of the bbolt file (8 bytes, big endian),
// the file, and the SHA-256 of the file. The same bytes are kept on disk by
// raft's snapshot store and sent to members that lag.
var snapshotMagic = [8]byte{'T', 'R', 'P', 'S', 'N', 'A', 'P', '1'}

// ErrBadSnapshot is returned for a snapshot that is cut off or altered.
var ErrBadSnapshot = errors.New("snapshot is corrupt or cut off")

type machineSnapshot struct {
	snap backend.Snapshot
	log  func(written int64, took time.Duration)
	fail Failpoints
	// copied ends the copying.
	copied func()
}

// Snapshot implements raft.FSM. It commits what is pending and pins a bbolt
// read transaction; the copy is made by Persist while entries go on being
// applied.
func (s *machine) Snapshot() (raft.FSMSnapshot, error) {
	if s.halted.Load() {
		return nil, ErrHalted
	}
	s.copying.RLock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &machineSnapshot{snap: s.be.Snapshot(), fail: s.fail, copied: s.copying.RUnlock, log: func(n int64, took time.Duration) {
		s.log.Info("snapshot written", "bytes", n, "took", took)
	}}, nil
}

// Persist implements raft.FSMSnapshot.
func (m *machineSnapshot) Persist(sink raft.SnapshotSink) error {
	start := time.Now()
	if err := m.write(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("close snapshot: %w", err)
	}
	m.log(m.snap.Size(), time.Since(start))
	return m.fail.At(AfterSnapshotSave)
}

func (m *machineSnapshot) write(sink io.Writer) error {
	if err := m.fail.At(BeforeSnapshotSave); err != nil {
		return err
	}
	if err := writeSnapshot(sink, m.snap); err != nil {
		return err
	}
	return m.fail.At(DuringSnapshotSave)
}

// Release implements raft.FSMSnapshot.
func (m *machineSnapshot) Release() {
	_ = m.snap.Close()
	m.copied()
}

func writeSnapshot(w io.Writer, snap backend.Snapshot) error {
	header := binary.BigEndian.AppendUint64(append([]byte(nil), snapshotMagic[:]...), uint64(snap.Size()))
	if _, err := w.Write(header); err != nil {
		return err
	}
	hash := sha256.New()
	n, err := snap.WriteTo(io.MultiWriter(w, hash))
	if err != nil {
		return err
	}
	if n != snap.Size() {
		return fmt.Errorf("wrote %d bytes of %d", n, snap.Size())
	}
	_, err = w.Write(hash.Sum(nil))
	return err
}

// Restore implements raft.FSM: it checks the snapshot, puts it in the place of
// the file and lets the mvcc store and the lessor read it. Watchers stay and
// are caught up by etcd's watchable store. Until the snapshot is known to be
// whole the present state is not touched.
func (s *machine) Restore(source io.ReadCloser) error {
	start := time.Now()
	if err := s.fail.At(BeforeRestore); err != nil {
		return err
	}
	received, index, err := s.receiveSnapshot(source)
	if err != nil {
		return err
	}
	if index <= s.index.ConsistentIndex() {
		// Raft counts from its last snapshot; the file may be ahead of it. What the
		// file holds is committed, so going back would only unlearn it.
		s.log.Info("snapshot is not newer than the state and is not needed", "index", index)
		return os.Remove(received)
	}
	if err := s.fail.At(DuringRestore); err != nil {
		return err
	}
	if err := replaceFile(received, s.path); err != nil {
		return err
	}
	if err := s.fail.At(AfterRestore); err != nil {
		s.halt(err)
		return err
	}
	fresh := s.openBackend()
	// The index first: recovering the lessor commits, and would write the old one.
	s.index.SetBackend(fresh)
	s.lessor.Recover(fresh, func() lease.TxnDelete { return s.kv.Write(traceutil.TODO()) })
	if err := s.kv.Restore(fresh); err != nil {
		err = fmt.Errorf("read snapshot into memory: %w", err)
		s.halt(err)
		return err
	}
	if err := s.loadAlarms(fresh); err != nil {
		s.halt(err)
		return err
	}
	fresh.SetTxPostLockInsideApplyHook(s.entering)
	s.mu.Lock()
	old := s.be
	s.be = fresh
	s.mu.Unlock()
	if err := s.loadMeta(); err != nil {
		s.halt(err)
		return err
	}
	s.advanced(s.index.ConsistentIndex())
	s.metrics.restores.Inc()
	s.onRestore()
	// Closing waits for the readers of the old file.
	s.closing.Go(func() {
		if err := old.Close(); err != nil {
			s.log.Error("close replaced database", "error", err)
		}
	})
	s.log.Info("snapshot restored", "index", s.index.ConsistentIndex(), "took", time.Since(start))
	return nil
}

// receiveSnapshot writes the bbolt file of a snapshot beside the database and
// returns its name and the index of the last entry in it. A snapshot of a level
// that this member does not understand is refused, and stops it.
func (s *machine) receiveSnapshot(source io.Reader) (name string, index uint64, err error) {
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".restore-*")
	if err != nil {
		return "", 0, fmt.Errorf("create file for snapshot: %w", err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := copySnapshot(f, source); err != nil {
		return "", 0, err
	}
	if err := f.Sync(); err != nil {
		return "", 0, fmt.Errorf("sync snapshot: %w", err)
	}
	index, raised, err := fileMeta(f.Name())
	if err != nil {
		return "", 0, err
	}
	if err := s.understood(raised, "the snapshot that it was sent"); err != nil {
		s.halt(err)
		return "", 0, err
	}
	return f.Name(), index, nil
}

func copySnapshot(w io.Writer, source io.Reader) error {
	var header [16]byte
	if _, err := io.ReadFull(source, header[:]); err != nil {
		return fmt.Errorf("%w: no header: %w", ErrBadSnapshot, err)
	}
	if [8]byte(header[:8]) != snapshotMagic {
		return fmt.Errorf("%w: it does not start with %q", ErrBadSnapshot, snapshotMagic)
	}
	size := int64(binary.BigEndian.Uint64(header[8:]))
	hash := sha256.New()
	buffered := bufio.NewWriterSize(w, 1<<20)
	n, err := io.CopyN(io.MultiWriter(buffered, hash), source, size)
	if err != nil {
		return fmt.Errorf("%w: %d of %d bytes: %w", ErrBadSnapshot, n, size, err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	var want [sha256.Size]byte
	if _, err := io.ReadFull(source, want[:]); err != nil {
		return fmt.Errorf("%w: no checksum: %w", ErrBadSnapshot, err)
	}
	if got := [sha256.Size]byte(hash.Sum(nil)); got != want {
		return fmt.Errorf("%w: checksum %x, want %x", ErrBadSnapshot, got[:8], want[:8])
	}
	return nil
}

// fileMeta reads the applied index and the levels of a bbolt file without changing
// it.
func fileMeta(path string) (index uint64, raised levels, err error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) (err error) {
		b := tx.Bucket(schema.Meta.Name())
		if b == nil {
			return nil
		}
		if v := b.Get(schema.MetaConsistentIndexKeyName); len(v) == 8 {
			index = binary.BigEndian.Uint64(v)
		}
		raised, err = decodeLevels(b.Get(levelsKey))
		return err
	})
	return index, raised, err
}

func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("put snapshot in place: %w", err)
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
