package store

import (
	"log/slog"
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
