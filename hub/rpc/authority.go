package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// standingTimeout bounds how long a member may take to tell how far it has come; one
// asks its own ports.
const standingTimeout = 3 * time.Second

// Authority is the hub's CA. Errors are gRPC status errors.
type Authority interface {
	// Rotate goes on with a rotation as far as nothing has to be waited for but
	// members; it works on the leader only. ask asks another member.
	Rotate(ctx context.Context, request *hubv1.RotateAuthorityRequest, ask AskStanding) (*hubv1.RotateAuthorityResponse, error)
	// Standing is how far this member has come.
	Standing(ctx context.Context) *hubv1.AuthorityStandingResponse
	// Certificates are the CAs that are trusted now, in PEM.
	Certificates() []byte
}

// AskStanding asks a member how far it has come.
type AskStanding func(ctx context.Context, member string) (*hubv1.AuthorityStandingResponse, error)

// RotateAuthority implements hubv1.AdminServer.
func (a *Admin) RotateAuthority(ctx context.Context, request *hubv1.RotateAuthorityRequest) (*hubv1.RotateAuthorityResponse, error) {
	verb := "get"
	if request.GetBegin() || request.GetFinish() {
		verb = "update"
	}
	if err := a.config.Authorizer.Authorize(ctx, verb); err != nil {
		return nil, err
	}
	_, now := a.config.Store.Local()
	leader := a.member(now.Leader)
	switch {
	case leader == nil:
		return nil, status.Error(codes.Unavailable, "the hub has no leader now, and its CA is not changed without one: try again, or see `tripodctl hub status`")
	case leader.GetName() != a.config.Self:
		return call(a, leader, func(c hubv1.AdminClient) (*hubv1.RotateAuthorityResponse, error) {
			return c.RotateAuthority(ctx, request)
		})
	}
	if verb == "update" {
		a.told(ctx, "the hub's CA is rotated", a.config.Self)
	}
	return a.config.Authority.Rotate(ctx, request, a.askStanding)
}

func (a *Admin) askStanding(ctx context.Context, name string) (*hubv1.AuthorityStandingResponse, error) {
	to := a.member(name)
	if to == nil {
		return nil, status.Errorf(codes.NotFound, "%q is no member of this hub", name)
	}
	ctx, cancel := context.WithTimeout(ctx, standingTimeout)
	defer cancel()
	return call(a, to, func(c hubv1.AdminClient) (*hubv1.AuthorityStandingResponse, error) {
		return c.AuthorityStanding(ctx, &hubv1.AuthorityStandingRequest{})
	})
}

// Authorities implements hubv1.AdminServer. Certificates of CAs are no secret; who
// asks needs one of theirs all the same, so that a stranger learns nothing.
func (a *Admin) Authorities(ctx context.Context, _ *hubv1.AuthoritiesRequest) (*hubv1.AuthoritiesResponse, error) {
	if _, _, err := caller(ctx); err != nil {
		return nil, err
	}
	return &hubv1.AuthoritiesResponse{Certificates: a.config.Authority.Certificates()}, nil
}

// AuthorityStanding implements hubv1.AdminServer.
func (a *Admin) AuthorityStanding(ctx context.Context, _ *hubv1.AuthorityStandingRequest) (*hubv1.AuthorityStandingResponse, error) {
	_, groups, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(groups, MembersOrganization) {
		return nil, status.Error(codes.PermissionDenied, "members ask one another this: use `tripodctl hub certificates rotate-ca`")
	}
	return a.config.Authority.Standing(ctx), nil
}
