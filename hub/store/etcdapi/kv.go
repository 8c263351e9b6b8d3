package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.uber.org/zap"

	"tripod.dev/tripod/hub/store"
)

type kvServer struct {
	store     *store.Store
	header    header
	maxTxnOps int
	maxBytes  int
}

var _ pb.KVServer = (*kvServer)(nil)

// Range implements pb.KVServer.
func (s *kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if !r.Serializable {
		if err := s.store.Linearize(ctx); err != nil {
			return nil, store.Status(err)
		}
	}
	resp, _, err := txn.Range(ctx, zap.NewNop(), s.store.KV(), r)
	if err != nil {
		return nil, store.Status(err)
	}
	s.header.fill(resp.Header)
	return resp, nil
}

// Put implements pb.KVServer.
func (s *kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, r, store.Put(r))
	if err != nil {
		return nil, err
	}
	return result.Response.(*pb.PutResponse), nil
}

// DeleteRange implements pb.KVServer.
func (s *kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := checkDelete(r); err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, r, store.Delete(r))
	if err != nil {
		return nil, err
	}
	return result.Response.(*pb.DeleteRangeResponse), nil
}

// Txn implements pb.KVServer. A transaction that only reads needs no entry in
// the log.
func (s *kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkTxn(r, s.maxTxnOps); err != nil {
		return nil, err
	}
	if !txn.IsTxnReadonly(r) {
		result, err := s.propose(ctx, r, store.Txn(r))
		if err != nil {
			return nil, err
		}
		return result.Response.(*pb.TxnResponse), nil
	}
	if !txn.IsTxnSerializable(r) {
		if err := s.store.Linearize(ctx); err != nil {
			return nil, store.Status(err)
		}
	}
	resp, _, err := txn.Txn(ctx, zap.NewNop(), r, false, s.store.KV(), nil)
	if err != nil {
		return nil, store.Status(err)
	}
	s.header.fill(resp.Header)
	return resp, nil
}

// Compact implements pb.KVServer.
func (s *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	result, err := s.propose(ctx, r, store.Compact(r))
	if err != nil {
		return nil, err
	}
	if r.Physical {
		if err := s.store.Maintenance().Compacted(ctx, result); err != nil {
			return nil, store.Status(err)
		}
	}
	return result.Response.(*pb.CompactionResponse), nil
}

type sized interface{ Size() int }

func (s *kvServer) propose(ctx context.Context, request sized, op store.Op) (*store.Result, error) {
	if request.Size() > s.maxBytes {
		return nil, rpctypes.ErrGRPCRequestTooLarge
	}
	result, err := s.store.Propose(ctx, op)
	if err != nil {
		return nil, store.Status(err)
	}
	s.header.fill(result.Response.GetHeader())
	return result, nil
}
