package store

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

func testMachine(t *testing.T, dir string) *machine {
	t.Helper()
	m, err := openMachine(Config{DataDir: dir, Logger: slog.New(slog.DiscardHandler)}.WithDefaults(), newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func entry(t *testing.T, index uint64, op Op) *raft.Log {
	t.Helper()
	data, err := op.at(max(firstLevel, op.command.GetVersion()), 0)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: 3, Data: data}
}

func put(value string) Op { return Put(&pb.PutRequest{Key: []byte("k"), Value: []byte(value)}) }

func TestUnknownCommandStopsTheMachine(t *testing.T) {
	m := testMachine(t, t.TempDir())
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	data, err := proto.Marshal(&raftlogv1.Command{Version: CommandVersion + 1, Op: &raftlogv1.Command_Put{}})
	if err != nil {
		t.Fatal(err)
	}
	results := m.ApplyBatch([]*raft.Log{entry(t, 5, put("a")), {Index: 6, Term: 3, Data: data}, entry(t, 7, put("b"))})
	if r := results[0].(*Result); r.Err != nil {
		t.Fatalf("entry before: %v", r.Err)
	}
	for _, r := range results[1:] {
		if !errors.Is(r.(*Result).Err, ErrHalted) {
			t.Fatalf("entry at or after the unknown one: %v", r.(*Result).Err)
		}
	}
	if err := <-m.haltErr; !strings.Contains(err.Error(), "entry 6") || !strings.Contains(err.Error(), "install the tripod-hub") {
		t.Fatalf("the machine stops with %v", err)
	}
	if m.kv.Rev() != 2 || m.index.ConsistentIndex() != 5 {
		t.Fatalf("revision %d, index %d after the unknown entry, want 2, 5", m.kv.Rev(), m.index.ConsistentIndex())
	}
}

func TestReplayedEntriesHaveNoEffect(t *testing.T) {
	dir := t.TempDir()
	m := testMachine(t, dir)
	batch := []*raft.Log{entry(t, 5, put("a")), entry(t, 6, put("b")), {Index: 7, Term: 3, Type: raft.LogConfiguration}}
	m.ApplyBatch(batch)
	for range 2 {
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
		m = testMachine(t, dir)
		m.ApplyBatch(batch)
		if m.kv.Rev() != 3 || m.applied.Load() != 7 {
			t.Fatalf("revision %d, applied %d after a replay, want 3, 7", m.kv.Rev(), m.applied.Load())
		}
	}
	m.ApplyBatch([]*raft.Log{entry(t, 8, put("c"))})
	if m.kv.Rev() != 4 {
		t.Fatalf("revision %d after a new entry, want 4", m.kv.Rev())
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
}
