package clientcases_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// database is a snapshot of a member's file, taken through the API, checked by
// its SHA-256 and opened.
type database struct {
	t  *testing.T
	db *bolt.DB
}

func (s *session) database() *database {
	s.t.Helper()
	r, err := s.Snapshot(s.ctx)
	s.check("snapshot", err)
	content, err := io.ReadAll(r)
	s.check("read snapshot", err)
	s.check("close snapshot", r.Close())
	content, sum := content[:len(content)-sha256.Size], content[len(content)-sha256.Size:]
	if want := sha256.Sum256(content); !bytes.Equal(sum, want[:]) {
		s.t.Fatalf("the snapshot ends with the hash %x, its content has %x", sum, want)
	}
	path := filepath.Join(s.t.TempDir(), "db")
	s.check("write", os.WriteFile(path, content, 0o600))
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	s.check("open the snapshot", err)
	s.t.Cleanup(func() { _ = db.Close() })
	return &database{t: s.t, db: db}
}

// finishedCompaction is the revision up to which old revisions are removed.
func (d *database) finishedCompaction() int64 {
	d.t.Helper()
	var revision int64
	err := d.db.View(func(tx *bolt.Tx) error {
		if value := tx.Bucket([]byte("meta")).Get([]byte("finishedCompactRev")); len(value) >= 8 {
			revision = int64(binary.BigEndian.Uint64(value))
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return revision
}

// values of a key in the order of their revisions.
func (d *database) values(key string) []string {
	d.t.Helper()
	var out []string
	err := d.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(_, v []byte) error {
			var kv mvccpb.KeyValue
			if err := kv.Unmarshal(v); err != nil {
				return err
			}
			if string(kv.Key) == key {
				out = append(out, string(kv.Value))
			}
			return nil
		})
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}
