package store

import (
	"bytes"
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

func TestWhatGrows(t *testing.T) {
	putting := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	deleting := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}}}
	nested := func(op *pb.RequestOp) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{op}}}}
	}
	txn := func(ops ...*pb.RequestOp) Op { return Txn(&pb.TxnRequest{Success: ops[:1], Failure: ops[1:]}) }
	tests := map[string]struct {
		op   Op
		want bool
	}{
		"a put grows":                                      {put("v"), true},
		"a record of the hub's own does not":               {putRecord(membersPrefix+"m9", &raftlogv1.MemberRecord{}), false},
		"a transaction that puts grows":                    {txn(putting("k")), true},
		"a transaction on a dataset does not":              {txn(putting("/registry/tripod.dev/datasets/pay/ledger-db")), false},
		"nor one on a run's evidence":                      {txn(putting("/registry/configmaps/tripod-system/evidence-pay.ledger.2")), false},
		"one on another config map grows":                  {txn(putting("/registry/configmaps/tripod-system/notes")), true},
		"a dataset together with something else grows":     {txn(putting("/registry/tripod.dev/datasets/pay/ledger-db"), putting("k")), true},
		"a transaction that may put grows":                 {txn(deleting, putting("k")), true},
		"a transaction with a put inside another one does": {txn(nested(putting("k"))), true},
		"a transaction that only deletes does not":         {txn(deleting, nested(deleting)), false},
		"a transaction on the hub's own records does not":  {txn(putting(sealKey)), false},
		"a delete does not":                                {Delete(&pb.DeleteRangeRequest{Key: []byte("k")}), false},
		"a compaction does not":                            {Compact(&pb.CompactionRequest{Revision: 1}), false},
		"an etcd lease grows":                              {LeaseGrant(&pb.LeaseGrantRequest{ID: 1, TTL: 60}), true},
		"the renewal of clusters' leases does not":         {leaseRenewal(&raftlogv1.LeaseRenewal{}), false},
		"an alarm does not":                                {alarmed(&pb.AlarmRequest{}), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := grows(test.op.command); got != test.want {
				t.Fatalf("got %v", got)
			}
		})
	}
}

// TestAlarmIsPartOfTheState: it survives a restart and comes with a snapshot, and
// while it stands members refuse the same entries.
func TestAlarmIsPartOfTheState(t *testing.T) {
	raise := alarmed(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE})
	lower := alarmed(&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE})
	dir := t.TempDir()
	m := testMachine(t, dir)
	apply := func(m *machine, index uint64, op Op) error { return m.Apply(entry(t, index, op)).(*Result).Err }
	for i, step := range []struct {
		op   Op
		want error
	}{
		{raiseTo(levelAlarm), nil}, {put("before"), nil}, {raise, nil}, {raise, nil}, {put("refused"), ErrNoSpace},
		{putRecord(membersPrefix+"m9", &raftlogv1.MemberRecord{Name: "m9"}), nil},
	} {
		if err := apply(m, uint64(i+1), step.op); !errors.Is(err, step.want) {
			t.Fatalf("step %d: got %v, want %v", i, err, step.want)
		}
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	m = testMachine(t, dir)
	if err := apply(m, 7, put("refused")); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("after a restart: %v", err)
	}
	other := testMachine(t, t.TempDir())
	restoreFrom(t, other, m)
	for _, each := range []*machine{m, other} {
		if err := apply(each, 8, put("refused")); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("after a snapshot: %v", err)
		}
		if err := apply(each, 9, lower); err != nil {
			t.Fatal(err)
		}
		if err := apply(each, 10, put("after")); err != nil {
			t.Fatalf("after the alarm was taken back: %v", err)
		}
		if each.kv.Rev() != 4 || each.index.ConsistentIndex() != 10 {
			t.Fatalf("revision %d, index %d, want 4, 10", each.kv.Rev(), each.index.ConsistentIndex())
		}
		if err := each.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// restoreFrom gives to the state of from.
func restoreFrom(t *testing.T, to, from *machine) {
	t.Helper()
	taken, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Release()
	var pipe snapshotPipe
	if err := taken.Persist(&pipe); err != nil {
		t.Fatal(err)
	}
	if err := to.Restore(&pipe); err != nil {
		t.Fatal(err)
	}
}

// snapshotPipe is a snapshot on its way from one machine to another.
type snapshotPipe struct{ bytes.Buffer }

func (*snapshotPipe) ID() string    { return "pipe" }
func (*snapshotPipe) Cancel() error { return nil }
func (*snapshotPipe) Close() error  { return nil }
