package rpc

import (
	"context"
	"crypto/sha256"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/pieces"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// Archive gives out the whole state of the hub.
type Archive interface {
	// Linearize returns when this member has applied everything that was
	// acknowledged before.
	Linearize(ctx context.Context) error
	// Copy pins the present state: size bytes that write gives out. The caller
	// must call release.
	Copy() (size int64, write func(io.Writer) (int64, error), release func() error)
}

// backupPart is the size of the pieces in which a backup is streamed.
const backupPart = 256 << 10

// Backup implements hubv1.AdminServer. The verb is one of its own, because the
// backup holds every Secret of the hub: of Tripod's roles none has it.
func (a *Admin) Backup(request *hubv1.BackupRequest, stream grpc.ServerStreamingServer[hubv1.BackupPart]) error {
	ctx := stream.Context()
	if err := a.config.Authorizer.Authorize(ctx, "backup"); err != nil {
		return err
	}
	if !request.GetLocal() {
		if err := a.config.Archive.Linearize(ctx); err != nil {
			return status.Errorf(codes.Unavailable, "the hub has no leader to ask what is newest: %v; --local backs up what member %s has", err, a.config.Self)
		}
	}
	user, _, _ := caller(ctx) // authorized already
	a.config.Logger.Info("a backup is taken", "user", user)
	size, write, release := a.config.Archive.Copy()
	defer func() {
		if err := release(); err != nil {
			a.config.Logger.Warn("release the backup's state", "error", err)
		}
	}()
	if err := stream.Send(&hubv1.BackupPart{Origin: &hubv1.BackupOrigin{Member: a.config.Self, Version: a.config.Version, Size: size}}); err != nil {
		return err
	}
	hash := sha256.New()
	out := &pieces.Writer{Size: backupPart, Send: func(piece []byte) error { return stream.Send(&hubv1.BackupPart{Data: piece}) }}
	if _, err := write(io.MultiWriter(out, hash)); err != nil {
		return status.Errorf(codes.Aborted, "read the database of member %s: %v", a.config.Self, err)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return stream.Send(&hubv1.BackupPart{Sha256: hash.Sum(nil)})
}
