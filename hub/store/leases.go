package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Leases is the etcd leases of the hub. Their expiry is counted by the leader
// alone, on its monotonic clock; a new leader extends every lease by an election
// time-out, so that none ends early. (The leases of clusters are another matter:
// see ProposeRenewal.)
type Leases struct {
	self    string
	machine *machine
	leaders *leaderWatch
	reader  *reader
	peers   *peers
	// local proposes on this member only.
	local   func(ctx context.Context, data []byte, command *raftlogv1.Command) (*Result, bool, error)
	timeout time.Duration
	log     *slog.Logger
}

// run revokes leases that have expired while this member leads.
func (l *Leases) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case expired := <-l.machine.lessor.ExpiredLeasesC():
			for _, e := range expired {
				l.revoke(ctx, e.ID)
			}
		}
	}
}

func (l *Leases) revoke(ctx context.Context, id lease.LeaseID) {
	if now, _ := l.leaders.get(); !now.Leading {
		return
	}
	// Only the leader's own lessor knows that the lease is over: if leadership
	// moves meanwhile, the entry must not be proposed by the next one.
	op := LeaseRevoke(&pb.LeaseRevokeRequest{ID: int64(id)})
	data, err := op.at(l.machine.level(), l.machine.incarnation.Load())
	if err != nil {
		l.log.Error("encode revocation", "lease", int64(id), "error", err)
		return
	}
	if err := l.reader.verify(ctx); err != nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, ErrTimeout)
	defer cancel()
	if _, _, err := l.local(ctx, data, op.command); err != nil {
		l.log.Warn("expired lease not revoked yet", "lease", int64(id), "error", err)
	}
}

// Renew extends a lease by its TTL and returns that, in seconds.
// lease.ErrLeaseNotFound: there is none.
func (l *Leases) Renew(ctx context.Context, id int64) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, ErrTimeout)
	defer cancel()
	for {
		leader, err := l.leaders.waitLeader(ctx, l.self)
		if err != nil {
			return 0, err
		}
		ttl, leading, err := l.renewAt(ctx, leader, id)
		if err != nil {
			return 0, err
		}
		if leading {
			if ttl <= 0 {
				return 0, lease.ErrLeaseNotFound
			}
			return ttl, nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return 0, ended(ctx)
		}
	}
}

func (l *Leases) renewAt(ctx context.Context, leader Leadership, id int64) (ttl int64, leading bool, err error) {
	if leader.Leading {
		return l.renewHere(ctx, id)
	}
	conn, err := l.peers.ready(ctx, leader.Leader)
	if err != nil {
		return 0, false, nil
	}
	resp, err := raftlogv1.NewMemberServiceClient(conn).RenewLease(ctx, &raftlogv1.RenewLeaseRequest{Id: id})
	if err != nil {
		return 0, false, nil
	}
	return resp.GetTtl(), resp.GetLeading(), nil
}

// renewHere renews on this member if it leads. It proves that first: a leader
// that has been replaced must not promise time.
func (l *Leases) renewHere(ctx context.Context, id int64) (ttl int64, leading bool, err error) {
	if now, _ := l.leaders.get(); !now.Leading {
		return 0, false, nil
	}
	if err := l.reader.linearize(ctx); err != nil {
		return 0, false, nil
	}
	ttl, err = l.machine.lessor.Renew(lease.LeaseID(id))
	switch {
	case err == nil:
		return ttl, true, nil
	case errors.Is(err, lease.ErrLeaseNotFound):
		return 0, true, nil
	case errors.Is(err, lease.ErrNotPrimary):
		return 0, false, nil
	default:
		return 0, false, fmt.Errorf("renew lease %x: %w", id, err)
	}
}

// TimeToLive describes a lease. lease.ErrLeaseNotFound: there is none.
func (l *Leases) TimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, ErrTimeout)
	defer cancel()
	request := &raftlogv1.LeaseTimeToLiveRequest{Id: r.ID, Keys: r.Keys}
	for {
		leader, err := l.leaders.waitLeader(ctx, l.self)
		if err != nil {
			return nil, err
		}
		answer, err := l.timeToLiveAt(ctx, leader, request)
		if err == nil && answer.GetLeading() {
			if !answer.GetFound() {
				return nil, lease.ErrLeaseNotFound
			}
			return &pb.LeaseTimeToLiveResponse{
				Header: &pb.ResponseHeader{}, ID: r.ID,
				TTL: answer.GetTtl(), GrantedTTL: answer.GetGrantedTtl(), Keys: answer.GetKeys(),
			}, nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}

func (l *Leases) timeToLiveAt(ctx context.Context, leader Leadership, r *raftlogv1.LeaseTimeToLiveRequest) (*raftlogv1.LeaseTimeToLiveResponse, error) {
	if leader.Leading {
		return l.timeToLiveHere(ctx, r)
	}
	conn, err := l.peers.ready(ctx, leader.Leader)
	if err != nil {
		return nil, err
	}
	return raftlogv1.NewMemberServiceClient(conn).LeaseTimeToLive(ctx, r)
}

func (l *Leases) timeToLiveHere(ctx context.Context, r *raftlogv1.LeaseTimeToLiveRequest) (*raftlogv1.LeaseTimeToLiveResponse, error) {
	if now, _ := l.leaders.get(); !now.Leading {
		return &raftlogv1.LeaseTimeToLiveResponse{}, nil
	}
	if err := l.reader.linearize(ctx); err != nil {
		return nil, Status(err)
	}
	found := l.machine.lessor.Lookup(lease.LeaseID(r.GetId()))
	if found == nil {
		return &raftlogv1.LeaseTimeToLiveResponse{Leading: true}, nil
	}
	resp := &raftlogv1.LeaseTimeToLiveResponse{
		Leading: true, Found: true,
		Ttl: int64(found.Remaining().Seconds()), GrantedTtl: found.TTL(),
	}
	if r.GetKeys() {
		for _, key := range found.Keys() {
			resp.Keys = append(resp.Keys, []byte(key))
		}
	}
	if found.Demoted() {
		return &raftlogv1.LeaseTimeToLiveResponse{}, nil
	}
	return resp, nil
}

// List returns the IDs of the leases that this member knows.
func (l *Leases) List() []int64 {
	leases := l.machine.lessor.Leases()
	ids := make([]int64, len(leases))
	for i, e := range leases {
		ids[i] = int64(e.ID)
	}
	return ids
}
