package store

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// grows tells whether a command is refused while space is short. What frees some
// or keeps leases alive is not: deletions, also in a transaction that puts
// nothing, compactions and renewals; nor are what is essential: the hub's own few
// records, by which a member that is in the way is replaced, and the objects by
// which a failover is decided, approved and accounted for. It is a function of the
// command alone, because every member must come to the same.
func grows(command *raftlogv1.Command) bool {
	switch op := command.GetOp().(type) {
	case *raftlogv1.Command_Put:
		var r pb.PutRequest
		return r.Unmarshal(op.Put) != nil || !isEssential(r.Key)
	case *raftlogv1.Command_Txn:
		var r pb.TxnRequest
		return r.Unmarshal(op.Txn) != nil || txnGrows(&r)
	case *raftlogv1.Command_LeaseGrant:
		return true
	}
	return false
}

func txnGrows(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if put := op.GetRequestPut(); put != nil && !isEssential(put.Key) {
				return true
			}
			if nested := op.GetRequestTxn(); nested != nil && txnGrows(nested) {
				return true
			}
		}
	}
	return false
}

// essential are the keys of small objects that must be written when nothing else
// may be. The list belongs to level 2 of the command set: members that differ in
// it would come to different states.
var essential = [][]byte{
	[]byte(recordsPrefix),
	[]byte("/registry/tripod.dev/applications/"),
	[]byte("/registry/tripod.dev/approvals/"),
	[]byte("/registry/tripod.dev/clusters/"),
	[]byte("/registry/tripod.dev/datasets/"),
	[]byte("/registry/tripod.dev/globalservices/"),
	[]byte("/registry/tripod.dev/recoveryruns/"),
	[]byte("/registry/configmaps/tripod-system/evidence-"),
}

func isEssential(key []byte) bool {
	return slices.ContainsFunc(essential, func(prefix []byte) bool { return bytes.HasPrefix(key, prefix) })
}
