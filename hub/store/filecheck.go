package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// checkFile reads a whole database and reports in words what bbolt and etcd's
// backend would panic about, or not notice: pages that do not hang together and
// values that are no values. A bit that was flipped inside a value is not noticed
// here; see auditor.
func checkFile(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := withoutPanic(func() error { return inspect(path) }); err != nil {
		return fmt.Errorf("store: the database %s cannot be used: %w: %s", path, err, startAfresh)
	}
	return nil
}

// withoutPanic turns the panics and faults of reading damaged files into errors.
func withoutPanic(read func() error) (err error) {
	// A page number that was altered may lead out of the mapped file.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errAltered, p)
		}
	}()
	return read()
}

func inspect(path string) error {
	// All of it is read, and in the order of keys: page by page from a disk that takes
	// six times as long as the file at once, as etcd's backend maps it, too.
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second, MmapFlags: unix.MAP_POPULATE})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = db.Close() }()
	return sideBySide(
		func() error { return db.View(func(tx *bolt.Tx) error { return tx.ForEach(checkBucket) }) },
		func() error { return db.View(checkRevisions) },
	)
}

// sideBySide reads in several ways at once, each without panic, and returns the first
// error: all that a member holds is read before it starts, and clients wait for it.
func sideBySide(reads ...func() error) error {
	var all errgroup.Group
	for _, read := range reads {
		all.Go(func() error { return withoutPanic(read) })
	}
	return all.Wait()
}

// checkBucket reads all entries in order, and the first and the last of each page by
// their keys: where both are found, so is all that lies between them, because it is in order.
// After the last page no other can be taken for it.
func checkBucket(name []byte, b *bolt.Bucket) error {
	mapped := b.Tx().DB().Info()
	page := func(key []byte) uintptr { // a large one counts as several
		return (uintptr(unsafe.Pointer(unsafe.SliceData(key))) - mapped.Data) / uintptr(mapped.PageSize)
	}
	var last, lastValue []byte
	return b.ForEach(func(key, value []byte) error {
		begins := last == nil || page(key) != page(last)
		switch {
		case last != nil && bytes.Compare(key, last) <= 0, begins && !bytes.Equal(b.Get(key), value):
			return fmt.Errorf("entry %x of bucket %s: %w", key, name, errAltered)
		case last != nil && begins && !bytes.Equal(b.Get(last), lastValue):
			return fmt.Errorf("entry %x of bucket %s: %w", last, name, errAltered)
		}
		last, lastValue = key, value
		return nil
	})
}

// checkRevisions reads every revision of every key. After the last compaction none
// may be missing.
func checkRevisions(tx *bolt.Tx) error {
	keys := tx.Bucket(schema.Key.Name())
	if keys == nil {
		return nil
	}
	last := int64(1)
	if meta := tx.Bucket(schema.Meta.Name()); meta != nil {
		if compacted := meta.Get(schema.ScheduledCompactKeyName); len(compacted) == len(mvcc.NewRevBytes()) {
			last = max(last, mvcc.BytesToRev(compacted).Main) // 0 may be compacted, too
		}
	}
	var kv mvccpb.KeyValue
	return keys.ForEach(func(revision, value []byte) error {
		at := mvcc.BytesToBucketKey(revision)
		kv = mvccpb.KeyValue{Key: kv.Key[:0], Value: kv.Value[:0]} // each is read into the room of the one before
		if err := kv.Unmarshal(value); err != nil {
			return fmt.Errorf("revision %d: %w: %w", at.Main, errAltered, err)
		}
		wrong := len(kv.Key) == 0 || !mvcc.IsTombstone(revision) && kv.ModRevision != at.Main
		if wrong || at.Main > last+1 {
			return fmt.Errorf("revision %d after %d: %w", at.Main, last, errAltered)
		}
		last = max(last, at.Main)
		return nil
	})
}
