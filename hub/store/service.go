package store

import (
	"context"
	"errors"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

type statusProto = spb.Status

// maxResponseBytes bounds what a member reads from another; transactions may
// return many keys.
const maxResponseBytes = 1 << 30

// What a side of a connection may have sent that the other has not read yet, in bytes:
// of one call, and of all. They are fixed because gRPC finds windows out by a ping for
// each answer that is waited for: two system calls on either side.
const (
	StreamWindow     = 2 << 20
	ConnectionWindow = 8 << 20
)

var (
	reconnect = grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 2 * time.Second,
	}
	keepaliveParams = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}
)

// memberService answers the other members on the leader.
type memberService struct {
	raftlogv1.UnimplementedMemberServiceServer
	proposer *proposer
	reader   *reader
	leases   *Leases
	standing func() *raftlogv1.StandingResponse
}

// Propose implements raftlogv1.MemberServiceServer.
func (m memberService) Propose(ctx context.Context, r *raftlogv1.ProposeRequest) (*raftlogv1.ProposeResponse, error) {
	command, err := m.proposer.machine.decode(r.GetCommand(), "a proposal of another member")
	if err != nil {
		return nil, status.Error(3, err.Error())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.proposer.timeout, ErrTimeout)
	defer cancel()
	if l, _ := m.proposer.leaders.get(); !l.Leading {
		return &raftlogv1.ProposeResponse{Outcome: raftlogv1.Outcome_OUTCOME_NOT_PROPOSED}, nil
	}
	result, proposed, err := m.proposer.local(ctx, r.GetCommand(), command)
	if err != nil {
		resp := &raftlogv1.ProposeResponse{Outcome: raftlogv1.Outcome_OUTCOME_UNKNOWN}
		if !proposed {
			resp.Outcome = raftlogv1.Outcome_OUTCOME_NOT_PROPOSED
		}
		setError(resp, err)
		return resp, nil
	}
	resp := &raftlogv1.ProposeResponse{Outcome: raftlogv1.Outcome_OUTCOME_APPLIED, Index: result.Index, Term: result.Term}
	if result.Err != nil {
		setError(resp, result.Err)
		return resp, nil
	}
	if result.Response != nil {
		if resp.Response, err = result.Response.Marshal(); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func setError(resp *raftlogv1.ProposeResponse, err error) {
	err = Status(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = status.FromContextError(err).Err()
	}
	s := status.Convert(err)
	resp.ErrorCode, resp.ErrorMessage = uint32(s.Code()), s.Message()
}

// ReadIndex implements raftlogv1.MemberServiceServer.
func (m memberService) ReadIndex(ctx context.Context, r *raftlogv1.ReadIndexRequest) (*raftlogv1.ReadIndexResponse, error) {
	if l, _ := m.reader.leaders.get(); !l.Leading {
		return &raftlogv1.ReadIndexResponse{}, nil
	}
	if index, ok := m.reader.vouched(r.GetAllegiance()); ok {
		return &raftlogv1.ReadIndexResponse{Confirmed: true, Index: index}, nil
	}
	index, err := m.reader.readIndex(ctx)
	if err != nil {
		return nil, Status(err)
	}
	return &raftlogv1.ReadIndexResponse{Confirmed: true, Index: index}, nil
}

// RenewLease implements raftlogv1.MemberServiceServer.
func (m memberService) RenewLease(ctx context.Context, r *raftlogv1.RenewLeaseRequest) (*raftlogv1.RenewLeaseResponse, error) {
	ttl, leading, err := m.leases.renewHere(ctx, r.GetId())
	if err != nil {
		return nil, Status(err)
	}
	return &raftlogv1.RenewLeaseResponse{Leading: leading, Ttl: ttl}, nil
}

// LeaseTimeToLive implements raftlogv1.MemberServiceServer.
func (m memberService) LeaseTimeToLive(ctx context.Context, r *raftlogv1.LeaseTimeToLiveRequest) (*raftlogv1.LeaseTimeToLiveResponse, error) {
	return m.leases.timeToLiveHere(ctx, r)
}

// Standing implements raftlogv1.MemberServiceServer.
func (m memberService) Standing(context.Context, *raftlogv1.StandingRequest) (*raftlogv1.StandingResponse, error) {
	return m.standing(), nil
}
