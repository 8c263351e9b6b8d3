package rpc

import (
	"context"
	"crypto/ed25519"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// Restored is what Admin knows of incarnations.
type Restored interface {
	// Sealed: the hub was restored and has not been approved.
	Sealed() bool
	// Operators are those whose keys are registered.
	Operators() []string
	// Register stores an operator's key for statements.
	Register(ctx context.Context, operator string, key ed25519.PublicKey) error
	// Difference compares what the hub wants with what the clusters report.
	Difference(ctx context.Context) (*hubv1.RestoreDifferenceResponse, error)
	// Approve ends the seal.
	Approve(ctx context.Context, incarnation uint64, by string) error
}

// RegisterOperatorKey implements hubv1.AdminServer. The name is the caller's, so
// that one person cannot register the keys of two.
func (a *Admin) RegisterOperatorKey(ctx context.Context, request *hubv1.RegisterOperatorKeyRequest) (*hubv1.RegisterOperatorKeyResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "sign"); err != nil {
		return nil, err
	}
	user, _, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if len(request.GetPublicKey()) != ed25519.PublicKeySize {
		return nil, status.Errorf(codes.InvalidArgument, "the key has %d bytes, want an Ed25519 public key of %d", len(request.GetPublicKey()), ed25519.PublicKeySize)
	}
	if err := a.config.Restored.Register(ctx, user, request.GetPublicKey()); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	a.config.Logger.Info("an operator's key was registered", "user", user)
	return &hubv1.RegisterOperatorKeyResponse{Operator: user, Operators: a.config.Restored.Operators()}, nil
}

// RestoreDifference implements hubv1.AdminServer.
func (a *Admin) RestoreDifference(ctx context.Context, _ *hubv1.RestoreDifferenceRequest) (*hubv1.RestoreDifferenceResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "get"); err != nil {
		return nil, err
	}
	return a.config.Restored.Difference(ctx)
}

// ApproveRestore implements hubv1.AdminServer.
func (a *Admin) ApproveRestore(ctx context.Context, request *hubv1.ApproveRestoreRequest) (*hubv1.ApproveRestoreResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "approve"); err != nil {
		return nil, err
	}
	user, _, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	difference, err := a.config.Restored.Difference(ctx)
	if err != nil {
		return nil, err
	}
	var blocking []string
	for _, d := range difference.GetDifferences() {
		if d.GetBlocks() {
			blocking = append(blocking, d.GetCluster()+" "+d.GetName())
		}
	}
	if len(blocking) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "the restored state is older than what runs, in %s: `tripodctl hub restore diff` says what to do", strings.Join(blocking, ", "))
	}
	if err := a.config.Restored.Approve(ctx, request.GetIncarnation(), user); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	a.config.Logger.Warn("a restored hub was approved", "user", user, "incarnation", request.GetIncarnation())
	return &hubv1.ApproveRestoreResponse{ApprovedBy: user}, nil
}
