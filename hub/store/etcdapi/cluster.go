package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
)

// clusterServer shows the members. They are changed through the hub's own
// membership operations, which keep its rules, and not through etcd's API.
type clusterServer struct {
	pb.UnimplementedClusterServer
	store  *store.Store
	header header
}

var _ pb.ClusterServer = (*clusterServer)(nil)

// MemberList implements pb.ClusterServer.
func (s *clusterServer) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if err := s.store.Linearize(ctx); err != nil {
			return nil, store.Status(err)
		}
	}
	resp := &pb.MemberListResponse{Header: s.header.new(0)}
	for _, m := range s.store.Membership().List() {
		resp.Members = append(resp.Members, &pb.Member{
			ID: m.ID(), Name: m.Name, IsLearner: !m.Voter,
			PeerURLs:   []string{"https://" + m.RaftAddress},
			ClientURLs: []string{"https://" + m.PeerAddress},
		})
	}
	return resp, nil
}

// MemberAdd implements pb.ClusterServer.
func (s *clusterServer) MemberAdd(context.Context, *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return nil, errMembership
}

// MemberRemove implements pb.ClusterServer.
func (s *clusterServer) MemberRemove(context.Context, *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return nil, errMembership
}

// MemberUpdate implements pb.ClusterServer.
func (s *clusterServer) MemberUpdate(context.Context, *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return nil, errMembership
}

// MemberPromote implements pb.ClusterServer.
func (s *clusterServer) MemberPromote(context.Context, *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return nil, errMembership
}

var errMembership = status.Error(codes.Unimplemented, "hub members are not changed through etcd's API: use tripodctl hub")
