package hub

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/encryption"
	"tripod.dev/tripod/hub/identity"
	"tripod.dev/tripod/hub/rpc"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/member"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// standing tells the admin service how the hub stands, and changes its members.
type standing struct {
	*member.View
	autopilot    *member.Autopilot
	defragmenter *member.Defragmenter
	store        *hubstore.Store
	identity     *identity.Identity
	box          *encryption.Box
}

// kmsPatience bounds how long a KMS may hold up what a member says of itself.
const kmsPatience = 300 * time.Millisecond

// problems are what is wrong with this member, in words.
func (s standing) problems() []string {
	list := s.identity.Problems()
	ctx, cancel := context.WithTimeout(context.Background(), kmsPatience)
	defer cancel()
	if err := s.box.Healthy(ctx); err != nil {
		list = append(list, err.Error())
	}
	if why := s.defragmenter.Problem(); why != "" {
		list = append(list, why)
	}
	return list
}

// Local implements rpc.Store.
func (s standing) Local() (*hubv1.MemberStatus, rpc.Leadership) {
	now := s.Status(time.Now())
	return &hubv1.MemberStatus{
			AppliedIndex: now.AppliedIndex, Revision: now.Revision,
			DbSizeBytes: now.DatabaseBytes, DbUsedBytes: now.UsedBytes, Problems: append(now.Problems, s.problems()...),
			Level: s.store.Level(), Understands: s.store.Understands(),
		}, rpc.Leadership{
			Leader: now.Leader, Term: now.Term, Incarnation: now.Incarnation,
			Level: s.store.Level(), LevelWaits: s.store.Membership().LevelWaits(),
		}
}

// Members implements rpc.Store.
func (s standing) Members() []*hubv1.MemberStatus {
	var list []*hubv1.MemberStatus
	for _, m := range s.store.Membership().List() {
		list = append(list, &hubv1.MemberStatus{
			Name: m.Name, Region: m.Region, Center: m.Center, Address: m.Address, Voter: m.Voter, Waiting: s.autopilot.Waiting(m.Name),
		})
	}
	return list
}

// Add implements rpc.Changes.
func (s standing) Add(ctx context.Context, request *hubv1.AddMemberRequest) error {
	m := MemberConfig{Name: request.GetName(), Region: request.GetRegion(), Center: request.GetCenter(), Address: request.GetAddress()}
	if err := m.validate(); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for _, other := range s.store.Membership().List() {
		if other.Address == m.Address {
			return status.Errorf(codes.InvalidArgument, "address %s is that of member %s: remove that one first, or give the new one its own", m.Address, other.Name)
		}
	}
	return asStatus(s.autopilot.Add(ctx, m.stored(), request.GetReplaces()))
}

// Promote implements rpc.Changes.
func (s standing) Promote(ctx context.Context, name string) error {
	return asStatus(s.autopilot.Promote(ctx, name))
}

// Remove implements rpc.Changes.
func (s standing) Remove(ctx context.Context, name string, force bool) error {
	return asStatus(s.autopilot.Remove(ctx, name, force))
}

// Defragment implements rpc.Upkeep.
func (s standing) Defragment(ctx context.Context, name string) error {
	return asStatus(s.defragmenter.Defragment(ctx, name))
}

// Compact implements rpc.Upkeep.
func (s standing) Compact(ctx context.Context, keep int64) (int64, error) {
	return s.store.Maintenance().Compact(ctx, keep)
}

func asStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, member.ErrRefused), errors.Is(err, member.ErrIsLeader):
		return status.Error(codes.FailedPrecondition, err.Error())
	default:
		return status.Error(codes.Unavailable, fmt.Sprintf("%v: look with tripodctl hub status whether it is done before you repeat it", err))
	}
}

// archive gives out the hub's state.
type archive struct{ store *hubstore.Store }

// Linearize implements rpc.Archive.
func (a archive) Linearize(ctx context.Context) error { return a.store.Linearize(ctx) }

// Copy implements rpc.Archive.
func (a archive) Copy() (int64, func(io.Writer) (int64, error), func() error) {
	return a.store.Maintenance().Copy()
}

// restored is what the admin service knows of incarnations.
type restored struct{ member *Member }

// Sealed implements rpc.Restored.
func (r *restored) Sealed() bool { return r.member.store.Incarnations().Sealed() }

// Operators implements rpc.Restored.
func (r *restored) Operators() []string { return r.member.store.Incarnations().Operators() }

// Register implements rpc.Restored.
func (r *restored) Register(ctx context.Context, operator string, key ed25519.PublicKey) error {
	return r.member.store.Incarnations().Register(ctx, operator, key)
}

// Difference implements rpc.Restored.
func (r *restored) Difference(ctx context.Context) (*hubv1.RestoreDifferenceResponse, error) {
	found, err := r.difference(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	answer := &hubv1.RestoreDifferenceResponse{
		Sealed: r.Sealed(), Incarnation: r.member.store.Incarnation(), Silent: found.silent,
	}
	for _, d := range found.list {
		answer.Differences = append(answer.Differences, &hubv1.Difference{
			Cluster: d.Cluster, Subject: d.Subject, Name: d.Name, Hub: d.Hub, InCluster: d.InCluster, Consequence: d.Consequence, Blocks: d.Blocks,
		})
	}
	for _, s := range r.member.store.Incarnations().Begun().GetSignatures() {
		answer.SignedBy = append(answer.SignedBy, s.GetOperator())
	}
	return answer, nil
}

// Approve implements rpc.Restored. The roles that the clusters have gone on to
// are taken over while the hub is still sealed.
func (r *restored) Approve(ctx context.Context, incarnation uint64, by string) error {
	found, err := r.difference(ctx)
	if err != nil {
		return err
	}
	if err := r.adopt(ctx, found.adoptions); err != nil {
		return err
	}
	return r.member.store.Incarnations().Approve(ctx, incarnation, by)
}
