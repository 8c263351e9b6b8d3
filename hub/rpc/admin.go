// Package rpc is the hub's gRPC API for operators and automation, on port 6444.
// Every call is authorized by RBAC in the hub, as the gateway's requests are.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// memberTimeout bounds what one member may take to tell its state: a center
// without power must not hold up the answer about the others.
const memberTimeout = time.Second

// transferTimeout bounds a change of leadership.
const transferTimeout = 8 * time.Second

// Store is what Admin tells of the replicated store.
type Store interface {
	// Local describes this member; Name, Region, Center and Address are set by
	// the caller.
	Local() (*hubv1.MemberStatus, Leadership)
	// Members are all of them, with Name, Region, Center, Address, Voter and
	// Waiting set.
	Members() []*hubv1.MemberStatus
	// Transfer moves the leadership; only the leader can.
	Transfer(ctx context.Context, to string) error
}

// Leadership is who leads, as one member knows it.
type Leadership struct {
	Leader      string
	Term        uint64
	Incarnation uint64
	// Level of the command set in force, and what the next one waits for: empty
	// unless this member leads.
	Level      uint32
	LevelWaits string
}

// Authorizer says whether the caller of ctx may do verb on the hub's members.
// It returns a gRPC status error with the reason when not.
type Authorizer interface {
	Authorize(ctx context.Context, verb string) error
}

// Config of the Admin service.
type Config struct {
	// Self is this member.
	Self string
	// Port on which every member serves this API.
	Port string
	// PeerTLS dials another member.
	PeerTLS    func(member string) *tls.Config
	Store      Store
	Changes    Changes
	Archive    Archive
	Upkeep     Upkeep
	Encryption Encryption
	Authority  Authority
	Restored   Restored
	Authorizer Authorizer
	// Certificates are those that this member knows; Member is set by the caller.
	Certificates func() []*hubv1.Certificate
	Version      string
	Logger       *slog.Logger
}

// Admin serves tripod.hub.v1.Admin.
type Admin struct {
	hubv1.UnimplementedAdminServer
	config Config
}

// NewAdmin returns the service; register it on the session server's port.
func NewAdmin(config Config) *Admin { return &Admin{config: config} }

// Register adds the service to a gRPC server.
func (a *Admin) Register(r grpc.ServiceRegistrar) { hubv1.RegisterAdminServer(r, a) }

// Status tells the state of every member; one that does not answer in time is
// listed as unreachable with the error.
func (a *Admin) Status(ctx context.Context, request *hubv1.StatusRequest) (*hubv1.StatusResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "get"); err != nil {
		return nil, err
	}
	local, leadership := a.config.Store.Local()
	answer := &hubv1.StatusResponse{
		Member: a.config.Self, Leader: leadership.Leader,
		Term: leadership.Term, Incarnation: leadership.Incarnation,
		Sealed: a.config.Restored.Sealed(), Operators: a.config.Restored.Operators(),
		Level: leadership.Level, LevelWaits: leadership.LevelWaits,
	}
	members := a.config.Store.Members()
	if !slices.ContainsFunc(members, func(m *hubv1.MemberStatus) bool { return m.GetName() == a.config.Self }) {
		return nil, status.Errorf(codes.FailedPrecondition, "member %s is not in the hub any more: stop it and empty its data folder, and ask another (--hub)", a.config.Self)
	}
	if leadership.Leader == a.config.Self {
		answer.Waiting = map[string]string{}
		for _, m := range members {
			if m.GetWaiting() != "" {
				answer.Waiting[m.GetName()] = m.GetWaiting()
			}
		}
	}
	var wait sync.WaitGroup
	for _, m := range members {
		if request.GetLocal() && m.GetName() != a.config.Self {
			continue
		}
		entry := &hubv1.MemberStatus{
			Name: m.GetName(), Region: m.GetRegion(), Center: m.GetCenter(), Address: m.GetAddress(),
			Leader: m.GetName() == leadership.Leader, Voter: m.GetVoter(),
		}
		answer.Members = append(answer.Members, entry)
		if m.GetName() == a.config.Self {
			copyState(entry, local)
			entry.Reachable, entry.Version = true, a.config.Version
			continue
		}
		wait.Go(func() {
			said := a.askMember(ctx, entry)
			if said != nil && entry.GetLeader() { // the leader is asked once
				answer.Waiting, answer.LevelWaits = said.GetWaiting(), said.GetLevelWaits()
			}
		})
	}
	wait.Wait()
	for _, m := range answer.GetMembers() {
		if !m.GetVoter() {
			m.Waiting = answer.GetWaiting()[m.GetName()]
		}
	}
	return answer, nil
}

// askMember fills entry with what the member says of itself, and returns all that
// it says; nil when it does not answer.
func (a *Admin) askMember(ctx context.Context, entry *hubv1.MemberStatus) *hubv1.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	answer, err := call(a, entry, func(c hubv1.AdminClient) (*hubv1.StatusResponse, error) {
		return c.Status(ctx, &hubv1.StatusRequest{Local: true})
	})
	if err == nil && len(answer.GetMembers()) != 1 {
		err = errors.New("the member does not know itself")
	}
	if err != nil {
		entry.Error = status.Convert(err).Message()
		return nil
	}
	copyState(entry, answer.GetMembers()[0])
	entry.Reachable, entry.Version = true, answer.GetMembers()[0].GetVersion()
	return answer
}

func copyState(to, from *hubv1.MemberStatus) {
	to.AppliedIndex, to.Revision, to.DbSizeBytes = from.GetAppliedIndex(), from.GetRevision(), from.GetDbSizeBytes()
	to.DbUsedBytes, to.Problems = from.GetDbUsedBytes(), from.GetProblems()
	to.Level, to.Understands = from.GetLevel(), from.GetUnderstands()
}

// TransferLeadership moves the leadership and returns when the new leader is
// known. A member that does not lead passes the request on.
func (a *Admin) TransferLeadership(ctx context.Context, request *hubv1.TransferLeadershipRequest) (*hubv1.TransferLeadershipResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "update"); err != nil {
		return nil, err
	}
	to := request.GetTo()
	if to != "" && a.member(to) == nil {
		return nil, status.Errorf(codes.NotFound, "%q is no member of this hub: `tripodctl hub status` lists them", to)
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	_, before := a.config.Store.Local()
	if before.Leader == to && to != "" {
		return &hubv1.TransferLeadershipResponse{Leader: to}, nil
	}
	leader := a.member(before.Leader)
	if leader == nil {
		return nil, status.Error(codes.Unavailable, "the hub has no leader now: try again")
	}
	if leader.GetName() != a.config.Self {
		return call(a, leader, func(c hubv1.AdminClient) (*hubv1.TransferLeadershipResponse, error) {
			return c.TransferLeadership(ctx, request)
		})
	}
	if err := a.config.Store.Transfer(ctx, to); err != nil {
		return nil, status.Errorf(codes.Unavailable, "hand the leadership to %q: %v", to, err)
	}
	return a.awaitOtherLeader(ctx, before)
}

func (a *Admin) awaitOtherLeader(ctx context.Context, before Leadership) (*hubv1.TransferLeadershipResponse, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, now := a.config.Store.Local(); now.Leader != "" && now.Term > before.Term {
			return &hubv1.TransferLeadershipResponse{Leader: now.Leader}, nil
		}
		select {
		case <-ctx.Done():
			return nil, status.Error(codes.DeadlineExceeded, "no new leader is known yet: look with `tripodctl hub status`")
		case <-ticker.C:
		}
	}
}

func (a *Admin) member(name string) *hubv1.MemberStatus {
	for _, m := range a.config.Store.Members() {
		if m.GetName() == name {
			return m
		}
	}
	return nil
}

// call does one call at another member, on a connection of its own: these calls
// are rare and a person waits for them.
func call[T any](a *Admin, to *hubv1.MemberStatus, do func(hubv1.AdminClient) (T, error)) (T, error) {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(to.GetAddress(), a.config.Port),
		grpc.WithTransportCredentials(credentials.NewTLS(a.config.PeerTLS(to.GetName()))))
	if err != nil {
		var none T
		return none, fmt.Errorf("open a connection to %s: %w", to.GetName(), err)
	}
	defer func() { _ = conn.Close() }()
	return do(hubv1.NewAdminClient(conn))
}
