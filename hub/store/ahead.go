package store

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// restoredAhead is by how much the revision of a restored hub is ahead of its
// backup's: more than any hub writes between a backup and its loss. It is etcd's
// advice for stores under Kubernetes (etcdutl snapshot restore --bump-revision
// --mark-compacted). Clients and agents remember revisions from after the backup;
// if they could come again they would name other states, and a watch from one of
// them would wait, or miss what happens, without a word.
const restoredAhead = 1_000_000_000

// aheadPrefix is before the keys of the records of such jumps.
const aheadPrefix = recordsPrefix + "restored/"

// jumpAhead moves the revision of a database that nobody has open ahead, and marks
// everything before as compacted, so that every watch begins anew. The space of
// superseded revisions is free with the first compaction.
func jumpAhead(path string) (err error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Update(func(tx *bolt.Tx) error {
		keys, meta := tx.Bucket(schema.Key.Name()), tx.Bucket(schema.Meta.Name())
		if keys == nil || meta == nil {
			return fmt.Errorf("%s has no bucket of keys or none of descriptions: it is no database of a hub", path)
		}
		last, _ := keys.Cursor().Last()
		if last == nil {
			return nil // nobody can remember anything
		}
		ahead := mvcc.RevToBytes(mvcc.Revision{Main: mvcc.BytesToBucketKey(last).Main + restoredAhead}, mvcc.NewRevBytes())
		main := mvcc.BytesToRev(ahead).Main
		// A revision must be of something: the record tells of the jump.
		record, err := (&mvccpb.KeyValue{
			Key: fmt.Appendf(nil, "%s%020d", aheadPrefix, main), CreateRevision: main, ModRevision: main, Version: 1,
		}).Marshal()
		if err != nil {
			return fmt.Errorf("encode the record of the jump: %w", err)
		}
		if err := keys.Put(ahead, record); err != nil {
			return fmt.Errorf("write the record of the jump: %w", err)
		}
		return meta.Put(schema.ScheduledCompactKeyName, ahead)
	})
}
