package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/schema"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Result is what applying one command gave. It is the same on every member.
type Result struct {
	// Index and Term of the entry in the Raft log.
	Index, Term uint64
	// Response is the etcd v3 response with only the revision in its header; nil
	// for commands without one.
	Response Response
	// Renewal is set for a lease renewal.
	Renewal *RenewalApplied
	// Err is the command's own refusal (no such lease, compacted, …). The entry is
	// committed all the same.
	Err error
}

// Response is a response message of the etcd v3 API.
type Response interface {
	GetHeader() *pb.ResponseHeader
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// RenewalApplied says that a member has applied a LeaseRenewal. The receiver
// notes the time on its own clock.
type RenewalApplied struct {
	Index, Term uint64
	// Revision of the key-value state when the renewal was applied.
	Revision int64
	Clusters []string
	Tick     uint64
	// Steady is LeaseRenewal.steady_millis; 0 for an entry that was in this
	// member's log when it started, which may be of any age.
	Steady time.Duration
}

var _ raft.BatchingFSM = (*machine)(nil)

// Apply implements raft.FSM.
func (s *machine) Apply(entry *raft.Log) any {
	return s.ApplyBatch([]*raft.Log{entry})[0]
}

// ApplyBatch implements raft.BatchingFSM.
func (s *machine) ApplyBatch(entries []*raft.Log) []any {
	start := time.Now()
	out := make([]any, len(entries))
	for i, entry := range entries {
		out[i] = s.applyEntry(entry)
	}
	if !s.halted.Load() {
		s.advanced(entries[len(entries)-1].Index)
	}
	s.metrics.batch.Observe(float64(len(entries)))
	s.metrics.apply.Observe(time.Since(start).Seconds())
	return out
}

// applyEntry applies one entry, unless the file holds its effects already:
// after a restart Raft hands over again everything since its last snapshot.
func (s *machine) applyEntry(entry *raft.Log) *Result {
	if s.halted.Load() {
		return &Result{Index: entry.Index, Term: entry.Term, Err: ErrHalted}
	}
	if err := s.fail.At(BeforeApply); err != nil {
		return s.stop(entry, err)
	}
	replayed := entry.Index <= s.index.ConsistentIndex()
	if entry.Type != raft.LogCommand {
		if !replayed {
			s.index.SetConsistentIndex(entry.Index, entry.Term)
		}
		return nil
	}
	result := &Result{Index: entry.Index, Term: entry.Term}
	command, err := s.decode(entry.Data, "this entry")
	if err != nil {
		return s.stop(entry, err)
	}
	if op, ok := command.GetOp().(*raftlogv1.Command_LeaseRenewal); ok {
		s.renew(op.LeaseRenewal, result)
	} else if !replayed {
		s.index.SetConsistentApplyingIndex(entry.Index, entry.Term)
		s.metrics.applies.Inc()
		if result.Err = s.admitted(command); result.Err == nil {
			s.execute(command, result)
		}
	} else {
		s.metrics.skipped.Inc()
	}
	// Commands without effects lock no transaction, so their index is moved here.
	if s.index.ConsistentIndex() < entry.Index {
		s.index.SetConsistentIndex(entry.Index, entry.Term)
	}
	if err := s.fail.At(AfterApply); err != nil {
		return s.stop(entry, err)
	}
	return result
}

// stop ends applying at entry for good.
func (s *machine) stop(entry *raft.Log, err error) *Result {
	s.halt(fmt.Errorf("store: entry %d of term %d cannot be applied: %w", entry.Index, entry.Term, err))
	return &Result{Index: entry.Index, Term: entry.Term, Err: ErrHalted}
}

func (s *machine) execute(command *raftlogv1.Command, result *Result) {
	if s.full.Load() && grows(command) {
		result.Err = ErrNoSpace
		return
	}
	switch op := command.GetOp().(type) {
	case *raftlogv1.Command_Put:
		run(op.Put, &pb.PutRequest{}, result, func(r *pb.PutRequest) (*pb.PutResponse, error) {
			resp, _, err := txn.Put(context.Background(), s.zap, s.lessor, s.kv, r)
			return resp, err
		})
	case *raftlogv1.Command_DeleteRange:
		run(op.DeleteRange, &pb.DeleteRangeRequest{}, result, func(r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
			resp, _, err := txn.DeleteRange(context.Background(), s.zap, s.kv, r)
			return resp, err
		})
	case *raftlogv1.Command_Txn:
		run(op.Txn, &pb.TxnRequest{}, result, func(r *pb.TxnRequest) (*pb.TxnResponse, error) {
			resp, _, err := txn.Txn(context.Background(), s.zap, r, true, s.kv, s.lessor)
			return resp, err
		})
	case *raftlogv1.Command_Compact:
		run(op.Compact, &pb.CompactionRequest{}, result, func(r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
			return s.compact(r.Revision)
		})
	case *raftlogv1.Command_LeaseGrant:
		run(op.LeaseGrant, &pb.LeaseGrantRequest{}, result, func(r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
			l, err := s.lessor.Grant(lease.LeaseID(r.ID), r.TTL)
			if err != nil {
				return nil, err
			}
			return &pb.LeaseGrantResponse{Header: s.header(), ID: int64(l.ID), TTL: l.TTL()}, nil
		})
	case *raftlogv1.Command_LeaseRevoke:
		run(op.LeaseRevoke, &pb.LeaseRevokeRequest{}, result, func(r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
			err := s.lessor.Revoke(lease.LeaseID(r.ID))
			return &pb.LeaseRevokeResponse{Header: s.header()}, err
		})
	case *raftlogv1.Command_LeaseCheckpoint:
		run(op.LeaseCheckpoint, &pb.LeaseCheckpointRequest{}, result, func(r *pb.LeaseCheckpointRequest) (*pb.LeaseCheckpointResponse, error) {
			for _, c := range r.Checkpoints {
				if err := s.lessor.Checkpoint(lease.LeaseID(c.ID), c.Remaining_TTL); err != nil {
					return nil, err
				}
			}
			return &pb.LeaseCheckpointResponse{Header: s.header()}, nil
		})
	case *raftlogv1.Command_Alarm:
		run(op.Alarm, &pb.AlarmRequest{}, result, s.alarm)
	case *raftlogv1.Command_StartIncarnation:
		result.Err = s.startIncarnation(op.StartIncarnation)
	case *raftlogv1.Command_RaiseLevel:
		result.Err = s.raiseLevel(result.Index, op.RaiseLevel)
	}
}

func (s *machine) compact(revision int64) (*pb.CompactionResponse, error) {
	if err := s.fail.At(BeforeCompact); err != nil {
		s.halt(err)
		return nil, ErrHalted
	}
	_, err := s.kv.Compact(traceutil.TODO(), revision)
	if err := s.fail.At(AfterCompact); err != nil {
		s.halt(err)
		return nil, ErrHalted
	}
	return &pb.CompactionResponse{Header: s.header()}, err
}

// run decodes a request, executes it and keeps the response if it succeeded. A
// request that does not decode was refused by every member alike.
func run[Req interface{ Unmarshal([]byte) error }, Resp Response](data []byte, request Req, result *Result, f func(Req) (Resp, error)) {
	if err := request.Unmarshal(data); err != nil {
		result.Err = fmt.Errorf("decode request: %w", err)
		return
	}
	response, err := f(request)
	if err != nil {
		result.Err = err
		return
	}
	result.Response = response
}

func (s *machine) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: s.kv.Rev()} }

func (s *machine) renew(r *raftlogv1.LeaseRenewal, result *Result) {
	if current := s.incarnation.Load(); r.GetIncarnation() != current {
		result.Err = fmt.Errorf("lease renewal of incarnation %d refused: the hub is in incarnation %d", r.GetIncarnation(), current)
		return
	}
	applied := RenewalApplied{
		Index: result.Index, Term: result.Term,
		Revision: s.kv.Rev(), Clusters: r.GetClusters(), Tick: r.GetTick(),
	}
	if result.Index > s.replayed {
		applied.Steady = time.Duration(r.GetSteadyMillis()) * time.Millisecond
	}
	result.Renewal = &applied
	s.onRenewal(applied)
}

func (s *machine) startIncarnation(r *raftlogv1.StartIncarnation) error {
	if current := s.incarnation.Load(); r.GetIncarnation() <= current {
		return fmt.Errorf("incarnation %d refused: the hub is in incarnation %d already", r.GetIncarnation(), current)
	}
	clusterID := s.clusterID.Load()
	if clusterID == 0 {
		clusterID = r.GetClusterId()
	}
	tx := s.be.BatchTx()
	tx.LockInsideApply()
	tx.UnsafePut(schema.Meta, incarnationKey, binary.BigEndian.AppendUint64(nil, r.GetIncarnation()))
	tx.UnsafePut(schema.Meta, clusterIDKey, binary.BigEndian.AppendUint64(nil, clusterID))
	tx.Unlock()
	s.incarnation.Store(r.GetIncarnation())
	s.clusterID.Store(clusterID)
	return nil
}
