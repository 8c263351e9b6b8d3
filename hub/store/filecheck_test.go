package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestWhatIsCheckedIsFound flips bits where keys are: if the check finds nothing wrong,
// every entry is found by its key. It looks up some of them only. A file that was made
// on another machine may have pages of another size.
func TestWhatIsCheckedIsFound(t *testing.T) {
	for _, size := range []int{1 << 10, os.Getpagesize()} {
		t.Run(fmt.Sprintf("pages of %d bytes", size), func(t *testing.T) { whatIsCheckedIsFound(t, size) })
	}
}

func whatIsCheckedIsFound(t *testing.T, pageSize int) {
	path := filepath.Join(t.TempDir(), "db")
	manyPages(t, path, pageSize)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	branches, leaves := pagesOf(whole, pageSize, 0x01), pagesOf(whole, pageSize, 0x02)
	if len(branches) < 3 || len(leaves) < 100 {
		t.Fatalf("the tree has %d branches and %d leaves, at least 3 and 100 are wanted", len(branches), len(leaves))
	}
	random := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for n := range 1000 {
		altered := slices.Clone(whole)
		of := branches
		if n%2 == 1 {
			of = leaves
		}
		at := of[random.IntN(len(of))]
		used := 16 + 16*int(binary.LittleEndian.Uint16(altered[at+10:])) + 512 // a page's head, its elements and many of its keys
		bit := random.IntN(8 * used)
		altered[at+bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, altered, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkFile(path) != nil {
			refused++
			continue
		}
		if err := withoutPanic(func() error { return allFound(path) }); err != nil {
			t.Fatalf("flip %d, bit %d of the page at %d: %v", n, bit, at, err)
		}
	}
	if refused < 300 {
		t.Fatalf("%d of 1,000 flips were refused: they do not hit what they should", refused)
	}
}

// manyPages writes a tree of three levels, with entries that share a page and others that
// have several.
func manyPages(t *testing.T, path string, pageSize int) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("entries"))
		for i := 0; i < 12_000 && err == nil; i++ {
			size := 40
			if i%100 == 0 {
				size = 9000
			}
			err = b.Put(fmt.Appendf(nil, "%032d", i), bytes.Repeat([]byte{byte(i)}, size))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// pagesOf a kind, by where they begin.
func pagesOf(file []byte, size int, kind uint16) (at []int) {
	for i := 2; (i+1)*size <= len(file); i++ {
		head := file[i*size:]
		if binary.LittleEndian.Uint64(head) == uint64(i) && binary.LittleEndian.Uint16(head[8:]) == kind {
			at = append(at, i*size)
		}
	}
	return at
}

// allFound looks up every entry.
func allFound(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				if !bytes.Equal(b.Get(key), value) {
					return fmt.Errorf("entry %s is not found", key)
				}
				return nil
			})
		})
	})
}
