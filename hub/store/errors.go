package store

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors of the store. Where etcd has one for the case it is etcd's, so that
// etcd's clients treat it as they know it.
var (
	// ErrNotLeader: this member does not lead; nothing was proposed.
	ErrNotLeader = etcderrors.ErrNotLeader
	// ErrNoLeader: no leader was found in time; nothing was proposed.
	ErrNoLeader = etcderrors.ErrNoLeader
	// ErrOutcomeUnknown: the leader was lost while the command was under way. It
	// may or may not be committed; only the caller can tell whether to repeat it.
	ErrOutcomeUnknown = etcderrors.ErrTimeoutDueToLeaderFail
	// ErrTimeout: no answer in time. A write may or may not be committed.
	ErrTimeout = etcderrors.ErrTimeout
	// ErrTooLarge: the command is over MaxRequestBytes.
	ErrTooLarge = etcderrors.ErrRequestTooLarge
	// ErrStopped: this member is shutting down.
	ErrStopped = etcderrors.ErrStopped
	// ErrHalted: this member has stopped applying; see the error of Run.
	ErrHalted = errors.New("store: this member has stopped applying entries; see its log")
	// ErrLeftBehind is matched by the error of a member whose hub was recovered or
	// restored without it (safety.md section 9): it is read-only for good.
	ErrLeftBehind = errors.New("store: the hub has gone on without this member")
	// ErrNoSpace: the database is over its quota, or an alarm says so. The error
	// that names a full disk matches it too.
	ErrNoSpace = etcderrors.ErrNoSpace
)

var statusOf = map[error]error{
	mvcc.ErrCompacted: rpctypes.ErrGRPCCompacted,
	mvcc.ErrFutureRev: rpctypes.ErrGRPCFutureRev,

	lease.ErrLeaseNotFound:    rpctypes.ErrGRPCLeaseNotFound,
	lease.ErrLeaseExists:      rpctypes.ErrGRPCLeaseExist,
	lease.ErrLeaseTTLTooLarge: rpctypes.ErrGRPCLeaseTTLTooLarge,

	etcderrors.ErrRequestTooLarge:            rpctypes.ErrGRPCRequestTooLarge,
	etcderrors.ErrTooManyRequests:            rpctypes.ErrTooManyRequests,
	etcderrors.ErrNoLeader:                   rpctypes.ErrGRPCNoLeader,
	etcderrors.ErrNotLeader:                  rpctypes.ErrGRPCNotLeader,
	etcderrors.ErrLeaderChanged:              rpctypes.ErrGRPCLeaderChanged,
	etcderrors.ErrStopped:                    rpctypes.ErrGRPCStopped,
	etcderrors.ErrTimeout:                    rpctypes.ErrGRPCTimeout,
	etcderrors.ErrTimeoutDueToLeaderFail:     rpctypes.ErrGRPCTimeoutDueToLeaderFail,
	etcderrors.ErrTimeoutDueToConnectionLost: rpctypes.ErrGRPCTimeoutDueToConnectionLost,
	etcderrors.ErrTimeoutWaitAppliedIndex:    rpctypes.ErrGRPCTimeoutWaitAppliedIndex,
	etcderrors.ErrUnhealthy:                  rpctypes.ErrGRPCUnhealthy,
	etcderrors.ErrKeyNotFound:                rpctypes.ErrGRPCKeyNotFound,
	etcderrors.ErrNoSpace:                    rpctypes.ErrGRPCNoSpace,
	etcderrors.ErrCorrupt:                    rpctypes.ErrGRPCCorrupt,
	etcderrors.ErrBadLeaderTransferee:        rpctypes.ErrGRPCBadLeaderTransferee,
}

// Status turns an error of this package into the gRPC status that etcd's
// clients expect. Statuses and context errors pass unchanged.
func Status(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if s, ok := statusOf[err]; ok {
		return s
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, ErrLeftBehind) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if errors.Is(err, ErrBusy) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	var full *noSpaceError
	if errors.As(err, &full) {
		return status.Error(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded: "+full.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}
