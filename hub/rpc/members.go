package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// Changes of the membership; each works on the leader only. Errors are gRPC
// status errors: FailedPrecondition for a refusal that says what to do instead,
// Unavailable when this member does not lead.
type Changes interface {
	Add(ctx context.Context, request *hubv1.AddMemberRequest) error
	Promote(ctx context.Context, name string) error
	Remove(ctx context.Context, name string, force bool) error
}

// AddMember implements hubv1.AdminServer.
func (a *Admin) AddMember(ctx context.Context, request *hubv1.AddMemberRequest) (*hubv1.ChangeMemberResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "create"); err != nil {
		return nil, err
	}
	if old := a.member(request.GetReplaces()); old != nil {
		if request.GetRegion() == "" && request.GetCenter() == "" {
			request.Region, request.Center = old.GetRegion(), old.GetCenter()
		}
	}
	return a.atLeader(ctx, "", func(c hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error) { return c.AddMember(ctx, request) },
		func() (string, error) {
			a.told(ctx, "member is added", request.GetName())
			return fmt.Sprintf("%s may join as a non-voter: start tripod-hub there with the hub token and all members in its file; `tripodctl hub members` shows when it votes", request.GetName()),
				a.config.Changes.Add(ctx, request)
		})
}

// PromoteMember implements hubv1.AdminServer.
func (a *Admin) PromoteMember(ctx context.Context, request *hubv1.PromoteMemberRequest) (*hubv1.ChangeMemberResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "update"); err != nil {
		return nil, err
	}
	return a.atLeader(ctx, "", func(c hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error) { return c.PromoteMember(ctx, request) },
		func() (string, error) {
			a.told(ctx, "member is promoted", request.GetName())
			return request.GetName() + " votes", a.config.Changes.Promote(ctx, request.GetName())
		})
}

// RemoveMember implements hubv1.AdminServer. A leader that is to go hands the
// leadership over first.
func (a *Admin) RemoveMember(ctx context.Context, request *hubv1.RemoveMemberRequest) (*hubv1.ChangeMemberResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "delete"); err != nil {
		return nil, err
	}
	return a.atLeader(ctx, request.GetName(), func(c hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error) { return c.RemoveMember(ctx, request) },
		func() (string, error) {
			a.told(ctx, "member is removed", request.GetName())
			return fmt.Sprintf("%s is no member any more: stop it there, and empty its data folder before it ever joins again", request.GetName()),
				a.config.Changes.Remove(ctx, request.GetName(), request.GetForce())
		})
}

func (a *Admin) told(ctx context.Context, what, name string) {
	user, _, _ := caller(ctx) // authorized already
	a.config.Logger.Info("a change of the members was asked for", "change", what, "peer", name, "user", user)
}

// atLeader does a change here if this member leads, and else passes it on. The
// leader may not be other: it then hands the leadership over.
func (a *Admin) atLeader(ctx context.Context, other string, pass func(hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error), do func() (string, error)) (*hubv1.ChangeMemberResponse, error) {
	_, now := a.config.Store.Local()
	leader := now.Leader
	if leader != "" && leader == other {
		moved, err := a.TransferLeadership(ctx, &hubv1.TransferLeadershipRequest{})
		if err != nil {
			return nil, err
		}
		leader = moved.GetLeader()
		if leader == other {
			return nil, status.Errorf(codes.Unavailable, "member %s leads again, and cannot remove itself: try again", other)
		}
	}
	to := a.member(leader)
	switch {
	case to == nil:
		return nil, status.Error(codes.Unavailable, "the hub has no leader now, and its members are not changed without one: try again, or see `tripodctl hub status`")
	case leader != a.config.Self:
		return call(a, to, pass)
	}
	message, err := do()
	if err != nil {
		return nil, err
	}
	return &hubv1.ChangeMemberResponse{Message: message}, nil
}
