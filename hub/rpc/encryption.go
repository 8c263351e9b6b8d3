package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// setTimeout bounds how long a member may take to put keys in force.
const setTimeout = 10 * time.Second

// Encryption is the keys of what the API servers keep. Errors are gRPC status
// errors.
type Encryption interface {
	// Rotate replaces the key; it works on the leader only. give gives another
	// member a configuration and returns when that has it in force.
	Rotate(ctx context.Context, give func(ctx context.Context, member string, configuration []byte) error) (message string, err error)
	// Set puts a configuration in force on this member, durably.
	Set(configuration []byte) error
}

// RotateEncryption implements hubv1.AdminServer.
func (a *Admin) RotateEncryption(ctx context.Context, request *hubv1.RotateEncryptionRequest) (*hubv1.ChangeMemberResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "update"); err != nil {
		return nil, err
	}
	return a.atLeader(ctx, "", func(c hubv1.AdminClient) (*hubv1.ChangeMemberResponse, error) {
		return c.RotateEncryption(ctx, request)
	},
		func() (string, error) {
			a.told(ctx, "the encryption key is rotated", a.config.Self)
			return a.config.Encryption.Rotate(ctx, a.giveEncryption)
		})
}

func (a *Admin) giveEncryption(ctx context.Context, name string, configuration []byte) error {
	to := a.member(name)
	if to == nil {
		return status.Errorf(codes.NotFound, "%q is no member of this hub", name)
	}
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	_, err := call(a, to, func(c hubv1.AdminClient) (*hubv1.SetEncryptionResponse, error) {
		return c.SetEncryption(ctx, &hubv1.SetEncryptionRequest{Configuration: configuration})
	})
	return err
}

// SetEncryption implements hubv1.AdminServer. No role may do it: the keys come from
// another member.
func (a *Admin) SetEncryption(ctx context.Context, request *hubv1.SetEncryptionRequest) (*hubv1.SetEncryptionResponse, error) {
	_, groups, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(groups, MembersOrganization) {
		return nil, status.Error(codes.PermissionDenied, "only members give one another keys: use `tripodctl hub encryption rotate`")
	}
	if err := a.config.Encryption.Set(request.GetConfiguration()); err != nil {
		return nil, err
	}
	return &hubv1.SetEncryptionResponse{}, nil
}
