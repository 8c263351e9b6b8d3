package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/pkg/v3/adt"
)

// The checks of requests before they are proposed are those of etcd 3.6
// (server/etcdserver/api/v3rpc/key.go), which does not export them.

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

func checkTxn(r *pb.TxnRequest, maxOps int) error {
	if err := checkTxnOps(r, maxOps); err != nil {
		return err
	}
	// After counting, so that an oversized request is refused cheaply.
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if _, _, err := checkIntervals(ops); err != nil {
			return err
		}
	}
	return nil
}

func checkTxnOps(r *pb.TxnRequest, maxOps int) error {
	count := max(len(r.Compare), len(r.Success), len(r.Failure))
	if count > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkOp(op, maxOps-count); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxOps int) error {
	switch v := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(v.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(v.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(v.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(v.RequestTxn, maxOps)
	default:
		return rpctypes.ErrGRPCKeyNotFound
	}
}

// checkIntervals refuses a transaction that puts a key twice or puts a key that
// it deletes; it returns what ops put and delete.
func checkIntervals(ops []*pb.RequestOp) (map[string]struct{}, adt.IntervalTree, error) {
	dels := adt.NewIntervalTree()
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			dels.Insert(interval(d), struct{}{})
		}
	}
	puts := map[string]struct{}{}
	for _, op := range ops {
		if t := op.GetRequestTxn(); t != nil {
			if err := checkNested(t, puts, dels); err != nil {
				return nil, dels, err
			}
		}
	}
	for _, op := range ops {
		p := op.GetRequestPut()
		if p == nil {
			continue
		}
		key := string(p.Key)
		if _, twice := puts[key]; twice || dels.Intersects(adt.NewStringAffinePoint(key)) {
			return nil, dels, rpctypes.ErrGRPCDuplicateKey
		}
		puts[key] = struct{}{}
	}
	return puts, dels, nil
}

func interval(d *pb.DeleteRangeRequest) adt.Interval {
	if len(d.RangeEnd) != 0 {
		return adt.NewStringAffineInterval(string(d.Key), string(d.RangeEnd))
	}
	return adt.NewStringAffinePoint(string(d.Key))
}

// checkNested adds what a nested transaction puts and deletes. Its two branches
// exclude each other, so they may put the same key.
func checkNested(t *pb.TxnRequest, puts map[string]struct{}, dels adt.IntervalTree) error {
	putsThen, delsThen, err := checkIntervals(t.Success)
	if err != nil {
		return err
	}
	putsElse, delsElse, err := checkIntervals(t.Failure)
	if err != nil {
		return err
	}
	for key := range putsThen {
		if _, twice := puts[key]; twice || dels.Intersects(adt.NewStringAffinePoint(key)) {
			return rpctypes.ErrGRPCDuplicateKey
		}
		puts[key] = struct{}{}
	}
	for key := range putsElse {
		_, twice := puts[key]
		_, exclusive := putsThen[key]
		if twice && !exclusive || dels.Intersects(adt.NewStringAffinePoint(key)) {
			return rpctypes.ErrGRPCDuplicateKey
		}
		puts[key] = struct{}{}
	}
	all := adt.NewStringAffineInterval("\x00", "")
	dels.Union(delsThen, all)
	dels.Union(delsElse, all)
	return nil
}
