package etcdapi

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/pieces"
	"tripod.dev/tripod/hub/store"
)

// storageVersion is the layout of the database file: etcd 3.6's.
const storageVersion = "3.6.0"

type maintenanceServer struct {
	pb.UnimplementedMaintenanceServer
	store  *store.Store
	header header
	log    *slog.Logger
}

var _ pb.MaintenanceServer = (*maintenanceServer)(nil)

// Status implements pb.MaintenanceServer. Kubernetes reads the version from it to
// learn which features of etcd it may use.
func (s *maintenanceServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	m := s.store.Membership()
	progress := m.Progress()
	size, used := s.store.Maintenance().Size()
	resp := &pb.StatusResponse{
		Header:           s.header.new(0),
		Version:          store.EtcdVersion,
		StorageVersion:   storageVersion,
		Leader:           m.LeaderID(),
		RaftIndex:        progress.CommitIndex,
		RaftAppliedIndex: progress.AppliedIndex,
		RaftTerm:         progress.Term,
		DbSize:           size,
		DbSizeInUse:      used,
		DowngradeInfo:    &pb.DowngradeInfo{},
		Errors:           s.store.Maintenance().Alarms(),
	}
	if resp.Leader == 0 {
		resp.Errors = append(resp.Errors, store.ErrNoLeader.Error())
	}
	return resp, nil
}

// Alarm implements pb.MaintenanceServer. NOSPACE is a committed fact of the hub
// when the database is over its quota, and this member's own when its disk is
// short; CORRUPT is this member's own. What is this member's own goes by itself.
func (s *maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	switch r.Action {
	case pb.AlarmRequest_GET:
		return &pb.AlarmResponse{Header: s.header.new(0), Alarms: s.alarms(r.Alarm)}, nil
	case pb.AlarmRequest_DEACTIVATE:
		taken, err := s.store.Maintenance().Disarm(ctx, r)
		if err != nil {
			return nil, store.Status(err)
		}
		return &pb.AlarmResponse{Header: s.header.new(0), Alarms: taken}, nil
	default:
		return nil, status.Error(codes.InvalidArgument, "alarms are raised by the hub itself")
	}
}

// alarms are those of a type that stand, NONE being all types.
func (s *maintenanceServer) alarms(want pb.AlarmType) []*pb.AlarmMember {
	id := s.store.Membership().SelfID()
	all := s.store.Maintenance().Committed()
	if s.store.Membership().Progress().LowOnSpace && !slices.ContainsFunc(all, func(a *pb.AlarmMember) bool { return a.MemberID == id }) {
		all = append(all, &pb.AlarmMember{MemberID: id, Alarm: pb.AlarmType_NOSPACE})
	}
	if s.store.Maintenance().Differs() {
		all = append(all, &pb.AlarmMember{MemberID: id, Alarm: pb.AlarmType_CORRUPT})
	}
	return slices.DeleteFunc(all, func(a *pb.AlarmMember) bool { return want != pb.AlarmType_NONE && a.Alarm != want })
}

// Defragment implements pb.MaintenanceServer.
func (s *maintenanceServer) Defragment(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.store.Maintenance().Defragment(); err != nil {
		return nil, store.Status(err)
	}
	return &pb.DefragmentResponse{Header: s.header.new(0)}, nil
}

// Hash implements pb.MaintenanceServer.
func (s *maintenanceServer) Hash(context.Context, *pb.HashRequest) (*pb.HashResponse, error) {
	hash, revision, err := s.store.Maintenance().Hashes().Hash()
	if err != nil {
		return nil, store.Status(err)
	}
	return &pb.HashResponse{Header: s.header.new(revision), Hash: hash}, nil
}

// HashKV implements pb.MaintenanceServer.
func (s *maintenanceServer) HashKV(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	hash, revision, err := s.store.Maintenance().Hashes().HashByRev(r.Revision)
	if err != nil {
		return nil, store.Status(err)
	}
	return &pb.HashKVResponse{
		Header: s.header.new(revision), Hash: hash.Hash, CompactRevision: hash.CompactRevision, HashRevision: hash.Revision,
	}, nil
}

// MoveLeader implements pb.MaintenanceServer.
func (s *maintenanceServer) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	m := s.store.Membership()
	if !s.store.IsLeader() {
		return nil, rpctypes.ErrGRPCNotLeader
	}
	for _, member := range m.List() {
		if member.ID() != r.TargetID {
			continue
		}
		if err := m.Transfer(ctx, member.Name); err != nil {
			return nil, store.Status(err)
		}
		return &pb.MoveLeaderResponse{Header: s.header.new(0)}, nil
	}
	return nil, rpctypes.ErrGRPCBadLeaderTransferee
}

// Downgrade implements pb.MaintenanceServer; there is nothing to downgrade to.
func (s *maintenanceServer) Downgrade(context.Context, *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	return nil, status.Error(codes.Unimplemented, "the hub's store cannot be downgraded")
}

// snapshotPart is the size of the pieces in which a snapshot is streamed.
const snapshotPart = 32 * 1024

// Snapshot implements pb.MaintenanceServer: the database file and then its
// SHA-256, as etcdctl expects.
func (s *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	size, write, release := s.store.Maintenance().Copy()
	defer func() {
		if err := release(); err != nil {
			s.log.Warn("close snapshot", "error", err)
		}
	}()
	sender := &pieces.Writer{Size: snapshotPart, Send: func(piece []byte) error {
		size -= int64(len(piece))
		return stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(size), Blob: piece, Version: storageVersion})
	}}
	hash := sha256.New()
	if _, err := write(io.MultiWriter(sender, hash)); err != nil {
		return store.Status(err)
	}
	if err := sender.Flush(); err != nil {
		return err
	}
	return stream.Send(&pb.SnapshotResponse{Blob: hash.Sum(nil), Version: storageVersion})
}
