package store

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// TestLogThatLostItsEndIsReadAfterARestart is a bug that the linearizability test
// found: a leader that was cut off drops the end of its log when it comes back,
// and could not be started again.
func TestLogThatLostItsEndIsReadAfterARestart(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Name: "m", Logger: slog.New(slog.DiscardHandler)}.WithDefaults()
	open := func() *disk {
		t.Helper()
		d, err := openDisk(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	for i := uint64(1); i <= 10; i++ {
		if err := d.log.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.log.DeleteRange(8, 10); err != nil {
		t.Fatal(err)
	}
	if err := d.log.StoreLog(&raft.Log{Index: 8, Term: 2, Data: []byte{88}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		d = open()
		if last, err := d.log.LastIndex(); err != nil || last != 8 {
			t.Fatalf("log ends at %d, want 8: %v", last, err)
		}
		for i := uint64(1); i <= 8; i++ {
			var entry raft.Log
			if err := d.log.GetLog(i, &entry); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if want := map[bool]uint64{true: 2, false: 1}[i == 8]; entry.Term != want {
				t.Fatalf("entry %d is of term %d, want %d", i, entry.Term, want)
			}
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

// TestLogThatEndsBeforeTheSnapshotTakesWhatFollowsIt is a crash between keeping a
// received snapshot and dropping the log: the damage test found that such a member
// stopped at the next entry, and at every start again.
func TestLogThatEndsBeforeTheSnapshotTakesWhatFollowsIt(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Name: "m", Logger: slog.New(slog.DiscardHandler)}.WithDefaults()
	d, err := openDisk(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	m, err := openMachine(cfg, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	for i := uint64(1); i <= 10; i++ {
		if err := d.log.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	m.index.SetConsistentIndex(20, 1)
	m.applied.Store(20)
	_, transport := raft.NewInmemTransport("")
	sink, err := d.snapshots.Create(1, 20, 1, raft.Configuration{}, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Persist(sink); err != nil {
		t.Fatal(err)
	}
	snapshot.Release()
	if err := d.reconcile(m); err != nil {
		t.Fatal(err)
	}
	if err := d.log.StoreLog(&raft.Log{Index: 21, Term: 1}); err != nil {
		t.Fatal(err)
	}
}

// TestLogGoesOnAfterAKillBetweenItsFiles: the last file is full, and the log does not
// know of the next one.
func TestLogGoesOnAfterAKillBetweenItsFiles(t *testing.T) {
	tests := map[string]struct {
		before uint64 // entries in the file before the one that fills it
		torn   bool
	}{
		"the write that filled it is complete":         {before: 3},
		"the write that filled it is torn":             {before: 3, torn: true},
		"a complete write is all that there is":        {},
		"the only write is torn, so there is no other": {torn: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir(), Name: "m", SegmentBytes: 4096, Logger: slog.New(slog.DiscardHandler)}.WithDefaults()
			folder := filepath.Join(cfg.DataDir, "raft", "log")
			last := fillFile(t, cfg, folder, test.before)
			if test.torn {
				tear(t, folder)
				last--
			}
			for range 2 {
				d, err := openDisk(cfg)
				if err != nil {
					t.Fatal(err)
				}
				last++
				if err := d.log.StoreLog(&raft.Log{Index: last, Term: 2, Data: []byte{byte(last)}}); err != nil {
					t.Error(err)
				}
				for i := uint64(1); i <= last; i++ {
					var entry raft.Log
					if err := d.log.GetLog(i, &entry); err != nil || entry.Data[0] != byte(i) {
						t.Errorf("entry %d is %v, %v", i, entry.Data, err)
					}
				}
				if err := d.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// fillFile writes entries and one that fills the file, and takes back what the log
// then wrote of itself. It returns the last entry.
func fillFile(t *testing.T, cfg Config, folder string, before uint64) (last uint64) {
	t.Helper()
	d, err := openDisk(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store := func(size int) {
		last++
		if err := d.log.StoreLog(&raft.Log{Index: last, Term: 1, Data: bytes.Repeat([]byte{byte(last)}, size)}); err != nil {
			t.Fatal(err)
		}
	}
	for range before {
		store(10)
	}
	meta := filepath.Join(folder, "wal-meta.db")
	content, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	store(filling)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return last
}

// filling is the size of an entry that fills a file.
const filling = 5000

// tear alters the entry that filled the first file.
func tear(t *testing.T, folder string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("the log has files %v, %v", names, err)
	}
	content, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	for b := range 10 {
		if at := bytes.Index(content, bytes.Repeat([]byte{byte(b)}, filling)); b > 0 && at >= 0 {
			content[at+filling/2]++
		}
	}
	if err := os.WriteFile(names[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
}
