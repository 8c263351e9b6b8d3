package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// fill applies revisions that a compaction needs some time to remove: mvcc takes
// a thousand at a time and pauses in between.
func fill(t *testing.T, m *machine, index uint64) uint64 {
	t.Helper()
	for range 100 {
		ops := &pb.TxnRequest{}
		for i := range 100 {
			put := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}
			ops.Success = append(ops.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		index++
		m.ApplyBatch([]*raft.Log{entry(t, index, Txn(ops))})
	}
	return index
}

func compact(t *testing.T, m *machine, index uint64) *Result {
	t.Helper()
	return m.ApplyBatch([]*raft.Log{entry(t, index, Compact(&pb.CompactionRequest{Revision: m.kv.Rev()}))})[0].(*Result)
}

// TestCompactedAfterARestore: who waits for a compaction goes on waiting when a
// snapshot takes the place of the state, and is told in the end: mvcc drops what
// waited for the old one, and takes the compaction up again.
func TestCompactedAfterARestore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ahead, behind := testMachine(t, t.TempDir()), testMachine(t, t.TempDir())
	last := fill(t, ahead, 5)
	compact(t, ahead, last+1)
	var snapshot bytes.Buffer
	taken := ahead.be.Snapshot()
	if err := writeSnapshot(&snapshot, taken); err != nil {
		t.Fatal(err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}

	result := compact(t, behind, fill(t, behind, 4)+1)
	waited := make(chan error, 1)
	m := &Maintenance{store: &Store{machine: behind}}
	go func() { waited <- m.Compacted(ctx, result) }()
	behind.onRestore = func() {}
	if err := behind.Restore(io.NopCloser(&snapshot)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("wait over a restore: %v", err)
	}
	if err := m.Compacted(ctx, &Result{Index: last + 1}); err != nil {
		t.Errorf("wait after a restore: %v", err)
	}
	tx := behind.be.ReadTx()
	tx.RLock()
	finished, _ := mvcc.UnsafeReadFinishedCompact(tx)
	tx.RUnlock()
	if finished != behind.kv.Rev() {
		t.Errorf("the compaction of %d is finished, want %d", finished, behind.kv.Rev())
	}
	for _, m := range []*machine{ahead, behind} {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}
}
