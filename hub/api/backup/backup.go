// Package backup reads and checks backup files of a hub. A backup is the hub's
// database file followed by its SHA-256, the form of etcd's snapshots, so etcd's
// tools read it too (etcdutl snapshot status). What it is of is written inside.
package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Facts say what a backup is of.
type Facts struct {
	// Hub is the cluster ID, in hexadecimal digits.
	Hub         string `json:"hub"`
	Incarnation uint64 `json:"incarnation"`
	Revision    int64  `json:"revision"`
	// Index and Term of the last entry of the Raft log in it.
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// SHA256 of the database in it, in hexadecimal digits, and its size in bytes.
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
	// Keys are the names of the keys that its objects are encrypted with. A restored
	// hub needs them all: they are in the folder pki of the members of that time.
	Keys []string `json:"keys,omitempty"`
	// Origin is empty in a snapshot that etcd's tools made.
	Origin Origin `json:"origin"`
}

// Origin is who made a backup.
type Origin struct {
	Member  string    `json:"member,omitempty"`
	Version string    `json:"version,omitempty"`
	Made    time.Time `json:"made,omitzero"`
}

// Buckets and keys of the database. The first ones are etcd's.
var (
	bucketMeta     = []byte("meta")
	bucketKeys     = []byte("key")
	keyIndex       = []byte("consistent_index")
	keyTerm        = []byte("term")
	keyCompacting  = []byte("scheduledCompactRev")
	keyCompacted   = []byte("finishedCompactRev")
	keyIncarnation = []byte("tripodIncarnation")
	keyHub         = []byte("tripodClusterID")

	bucketBackup = []byte("tripodBackup")
	keyOrigin    = []byte("origin")
)

// Seal turns a database file that was received into a backup: it writes the
// origin into it, makes it durable and appends the SHA-256.
func Seal(path string, origin Origin) error {
	if err := writeOrigin(path, origin); err != nil {
		return fmt.Errorf("write the origin into %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("seal the backup: %w", err)
	}
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	if err == nil {
		_, err = f.Write(hash.Sum(nil))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("seal the backup %s: %w", path, err)
	}
	return nil
}

func writeOrigin(path string, origin Origin) error {
	text, err := json.Marshal(origin)
	if err != nil {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	db.AllocSize = 64 << 10 // one small page; do not grow the file by megabytes
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketBackup)
		if err != nil {
			return err
		}
		return b.Put(keyOrigin, text)
	})
	return errors.Join(err, db.Close())
}

// Verify reads the whole file: the SHA-256, every page of the database, and the
// facts. It changes nothing.
func Verify(path string) (Facts, error) {
	facts, err := verify(path)
	if err != nil {
		return Facts{}, fmt.Errorf("backup %s is not good: %w", path, err)
	}
	return facts, nil
}

func verify(path string) (Facts, error) {
	sum, size, err := checkSum(path)
	if err != nil {
		return Facts{}, err
	}
	// bbolt reads the pages it knows of; the sum behind them is not one.
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return Facts{}, fmt.Errorf("open the database: %w", err)
	}
	facts := Facts{SHA256: sum, Bytes: size}
	err = db.View(func(tx *bolt.Tx) error {
		var broken []error
		for err := range tx.Check() {
			if len(broken) < 10 {
				broken = append(broken, err)
			}
		}
		return errors.Join(append(broken, facts.read(tx))...)
	})
	return facts, errors.Join(err, db.Close())
}

func checkSum(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	// Pages are of 512 bytes at least.
	if info.Size()%512 != sha256.Size {
		return "", 0, fmt.Errorf("its size (%d bytes) is not that of a database and its SHA-256: it is cut off or no backup", info.Size())
	}
	size = info.Size() - sha256.Size
	hash := sha256.New()
	if _, err := io.CopyN(hash, f, size); err != nil {
		return "", 0, err
	}
	var want [sha256.Size]byte
	if _, err := io.ReadFull(f, want[:]); err != nil {
		return "", 0, err
	}
	if got := [sha256.Size]byte(hash.Sum(nil)); got != want {
		return "", 0, fmt.Errorf("its SHA-256 is %x, want %x: it was altered", got, want)
	}
	return hex.EncodeToString(want[:]), size, nil
}

func (f *Facts) read(tx *bolt.Tx) error {
	meta, keys := tx.Bucket(bucketMeta), tx.Bucket(bucketKeys)
	if meta == nil || keys == nil {
		return errors.New("it holds no state of a hub")
	}
	number := func(key []byte) uint64 {
		if v := meta.Get(key); len(v) == 8 {
			return binary.BigEndian.Uint64(v)
		}
		return 0
	}
	f.Index, f.Term, f.Incarnation = number(keyIndex), number(keyTerm), number(keyIncarnation)
	f.Hub = fmt.Sprintf("%x", number(keyHub))
	if f.Incarnation == 0 {
		return errors.New("it holds no incarnation: it is no backup of a Tripod hub")
	}
	// Keys of this bucket are revisions: main, '_', sub. A compaction may have
	// dropped the newest, if that was a deletion.
	last, _ := keys.Cursor().Last()
	for _, revision := range [][]byte{last, meta.Get(keyCompacting), meta.Get(keyCompacted)} {
		if len(revision) >= 8 {
			f.Revision = max(f.Revision, int64(binary.BigEndian.Uint64(revision)))
		}
	}
	if err := f.readKeys(keys); err != nil {
		return err
	}
	if b := tx.Bucket(bucketBackup); b != nil {
		if err := json.Unmarshal(b.Get(keyOrigin), &f.Origin); err != nil {
			return fmt.Errorf("read its origin: %w", err)
		}
	}
	return nil
}

func (f *Facts) readKeys(revisions *bolt.Bucket) error {
	found := map[string]bool{}
	err := revisions.ForEach(func(_, value []byte) error {
		var kv mvccpb.KeyValue
		if err := kv.Unmarshal(value); err != nil {
			return fmt.Errorf("read a revision: %w", err)
		}
		if name := EncryptionKey(kv.Value); name != "" {
			found[name] = true
		}
		return nil
	})
	f.Keys = slices.Sorted(maps.Keys(found))
	return err
}

// valuePrefix is what Kubernetes puts before an encrypted value, followed by
// PROVIDER:VERSION:KEY:.
const valuePrefix = "k8s:enc:"

// EncryptionKey returns the name of the key that a stored value is encrypted with,
// empty if it is not encrypted.
func EncryptionKey(value []byte) string {
	head := string(value[:min(len(value), 256)])
	if !strings.HasPrefix(head, valuePrefix) {
		return ""
	}
	parts := strings.SplitN(head[len(valuePrefix):], ":", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[2]
}

// Extract writes the database of a verified backup to path, without the SHA-256,
// and returns when it is durable.
func Extract(backup string, facts Facts, path string) error {
	in, err := os.Open(backup)
	if err != nil {
		return fmt.Errorf("extract the backup: %w", err)
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("extract the backup: %w", err)
	}
	hash := sha256.New()
	_, err = io.CopyN(io.MultiWriter(out, hash), in, facts.Bytes)
	if err == nil && hex.EncodeToString(hash.Sum(nil)) != facts.SHA256 {
		err = errors.New("it changed after it was verified")
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("extract the backup %s: %w", backup, err)
	}
	return nil
}
