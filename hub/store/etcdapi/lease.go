package etcdapi

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/lease"

	"tripod.dev/tripod/hub/store"
)

type leaseServer struct {
	store  *store.Store
	header header
}

var _ pb.LeaseServer = (*leaseServer)(nil)

// LeaseGrant implements pb.LeaseServer.
func (s *leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	for r.ID == int64(lease.NoLease) {
		r.ID = rand.Int64()
	}
	result, err := s.store.Propose(ctx, store.LeaseGrant(r))
	if err != nil {
		return nil, store.Status(err)
	}
	resp := result.Response.(*pb.LeaseGrantResponse)
	s.header.fill(resp.Header)
	return resp, nil
}

// LeaseRevoke implements pb.LeaseServer.
func (s *leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	result, err := s.store.Propose(ctx, store.LeaseRevoke(r))
	if err != nil {
		return nil, store.Status(err)
	}
	resp := result.Response.(*pb.LeaseRevokeResponse)
	s.header.fill(resp.Header)
	return resp, nil
}

// LeaseTimeToLive implements pb.LeaseServer. A lease that does not exist has a
// TTL of -1.
func (s *leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	resp, err := s.store.Leases().TimeToLive(ctx, r)
	if errors.Is(err, lease.ErrLeaseNotFound) {
		resp, err = &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: -1}, nil
	}
	if err != nil {
		return nil, store.Status(err)
	}
	s.header.fill(resp.Header)
	return resp, nil
}

// LeaseLeases implements pb.LeaseServer.
func (s *leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	resp := &pb.LeaseLeasesResponse{Header: s.header.new(0), Leases: []*pb.LeaseStatus{}}
	for _, id := range s.store.Leases().List() {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
	}
	return resp, nil
}

// LeaseKeepAlive implements pb.LeaseServer.
func (s *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	done := make(chan error, 1)
	go func() { done <- s.keepAlive(stream) }()
	select {
	case err := <-done:
		return err
	case <-stream.Context().Done():
		// The server itself ends a stream only for want of a leader.
		if errors.Is(stream.Context().Err(), context.Canceled) {
			return rpctypes.ErrGRPCNoLeader
		}
		return stream.Context().Err()
	}
}

func (s *leaseServer) keepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The header is made before renewing, so that its revision is not newer
		// than the renewal: a client must not see "alive" at a revision at which the
		// lease was revoked.
		resp := &pb.LeaseKeepAliveResponse{ID: req.ID, Header: s.header.new(0)}
		resp.TTL, err = s.store.Leases().Renew(stream.Context(), req.ID)
		if err != nil && !errors.Is(err, lease.ErrLeaseNotFound) {
			return store.Status(err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}
