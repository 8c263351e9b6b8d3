package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// TestEntriesAreNeverZeroed writes as a log does, further and further and sometimes again
// from an earlier place, and closes in between.
func TestEntriesAreNeverZeroed(t *testing.T) {
	const size = 3*zeroesAhead + 1000
	dir := t.TempDir()
	files := logFiles{fs.New()}
	file, err := files.Create(dir, "log", size)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	end := 0
	for i, n := range []int{10, 5000, 1, zeroesAhead - 1, zeroesAhead, 70_000, 4096, 300_000, 100_000} {
		if i%3 == 2 {
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			if file, err = files.OpenWriter(dir, "log"); err != nil {
				t.Fatal(err)
			}
		}
		if i == 6 {
			end -= 1000 // a write that failed is written again
		}
		entry := bytes.Repeat([]byte{byte('a' + i)}, n)
		want = append(want[:end], append(entry, want[min(len(want), end+n):]...)...)
		if _, err := file.WriteAt(entry, int64(end)); err != nil {
			t.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
		end += n
		got, err := os.ReadFile(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:end], want[:end]) || bytes.ContainsFunc(got[end:], func(r rune) bool { return r != 0 }) {
			t.Fatalf("after write %d, up to byte %d, the file is not what was written", i, end)
		}
		if grown := max(size, end); len(got) != grown {
			t.Fatalf("the file has %d bytes, want %d", len(got), grown)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// fickle is a file of which some writes and syncs fail.
type fickle struct {
	types.WritableFile
	offsets    []int64
	failWrites int64 // those from this place on
	failSync   bool
	synced     int
}

var errFickle = errors.New("no")

func (f *fickle) WriteAt(p []byte, at int64) (int, error) {
	f.offsets = append(f.offsets, at)
	if f.failWrites != 0 && at >= f.failWrites {
		return 0, errFickle
	}
	return len(p), nil
}

func (f *fickle) Sync() error {
	f.synced++
	if f.failSync {
		return errFickle
	}
	return nil
}

func TestZerosThatCannotBeWrittenAreNoFailure(t *testing.T) {
	file := &fickle{failWrites: 100}
	l := newLogFile(file, 1<<20)
	if _, err := l.WriteAt(make([]byte, 100), 0); err != nil {
		t.Errorf("the entry was written, and it says: %v", err)
	}
	file.failWrites = 0
	for at := range int64(3) {
		if _, err := l.WriteAt(make([]byte, 10), 100+10*at); err != nil {
			t.Fatal(err)
		}
	}
	if want := []int64{0, 100, 100, 110, 110, 120}; !slices.Equal(file.offsets, want) {
		t.Errorf("writes at %v, want %v: zeros behind the first two entries, and none behind those that come into them", file.offsets, want)
	}
	file.failWrites = 1
	if _, err := l.WriteAt(make([]byte, 10), 130); !errors.Is(err, errFickle) {
		t.Errorf("an entry that was not written: %v", err)
	}
}

func TestTheFirstSyncIsAWholeOne(t *testing.T) {
	data, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	file := &fickle{failSync: true}
	l := newLogFile(file, 0)
	l.data = data
	if err := l.Sync(); !errors.Is(err, errFickle) {
		t.Errorf("a sync that failed: %v", err)
	}
	file.failSync = false
	for range 3 {
		if err := l.Sync(); err != nil {
			t.Error(err)
		}
	}
	if file.synced != 2 {
		t.Errorf("%d whole syncs, want the one that failed and one more", file.synced)
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(); err == nil {
		t.Error("a sync of a closed file succeeds")
	}
}

// BenchmarkLog reports the time per entry that is synced alone, in files as raft-wal
// makes them and in ours.
func BenchmarkLog(b *testing.B) {
	for name, files := range map[string]types.VFS{"plain": fs.New(), "ours": logFiles{fs.New()}} {
		for _, size := range []int{256, 4096} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				dir := b.TempDir()
				w, err := wal.Open(dir, wal.WithSegmentSize(16<<20), wal.WithSegmentFiler(segments{segment.NewFiler(dir, files)}),
					wal.WithLogger(raftLogTo(slog.New(slog.DiscardHandler))))
				if err != nil {
					b.Fatal(err)
				}
				defer func(c io.Closer) {
					if err := c.Close(); err != nil {
						b.Error(err)
					}
				}(w)
				entry := make([]byte, size)
				for i := uint64(1); b.Loop(); i++ {
					if err := w.StoreLog(&raft.Log{Index: i, Term: 1, Data: entry}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
