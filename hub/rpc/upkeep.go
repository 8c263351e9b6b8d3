package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// Upkeep looks after the database files.
type Upkeep interface {
	// Compact drops superseded revisions but for those of the last keep revisions,
	// on any member; it returns up to which.
	Compact(ctx context.Context, keep int64) (revision int64, err error)
	// Defragment rewrites a member's file; it works on the leader only. Errors are
	// as those of Changes.
	Defragment(ctx context.Context, name string) error
}

// Compact implements hubv1.AdminServer.
func (a *Admin) Compact(ctx context.Context, request *hubv1.CompactRequest) (*hubv1.CompactResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "update"); err != nil {
		return nil, err
	}
	revision, err := a.config.Upkeep.Compact(ctx, request.GetKeep())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	user, _, _ := caller(ctx) // authorized already
	a.config.Logger.Info("superseded revisions are dropped on order", "revision", revision, "user", user)
	return &hubv1.CompactResponse{Revision: revision}, nil
}

// Defragment implements hubv1.AdminServer. A leader among others hands the
// leadership over first.
func (a *Admin) Defragment(ctx context.Context, request *hubv1.DefragmentRequest) (*hubv1.ChangeMemberResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "update"); err != nil {
		return nil, err
	}
	name := request.GetName()
	if a.member(name) == nil {
		return nil, status.Errorf(codes.NotFound, "%q is no member of this hub: `tripodctl hub members` lists them", name)
	}
	notLeading := name
	if len(a.config.Store.Members()) == 1 {
		notLeading = "" // there is nobody to lead instead
	}
	return a.atLeader(ctx, notLeading, func(c hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error) { return c.Defragment(ctx, request) },
		func() (string, error) {
			a.told(ctx, "member is defragmented", name)
			return fmt.Sprintf("the database of %s has no holes", name), a.config.Upkeep.Defragment(ctx, name)
		})
}
