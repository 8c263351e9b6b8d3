package rpc

import (
	"context"
	"crypto/sha256"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	out := &parts{stream: stream}
	if _, err := write(io.MultiWriter(out, hash)); err != nil {
		return status.Errorf(codes.Aborted, "read the database of member %s: %v", a.config.Self, err)
	}
	if err := out.flush(); err != nil {
		return err
	}
	return stream.Send(&hubv1.BackupPart{Sha256: hash.Sum(nil)})
}

// parts sends what is written to it in pieces. gRPC may keep what is sent, so
// every piece has a buffer of its own.
type parts struct {
	stream grpc.ServerStreamingServer[hubv1.BackupPart]
	buffer []byte
}

// Write implements io.Writer.
func (p *parts) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		if p.buffer == nil {
			p.buffer = make([]byte, 0, backupPart)
		}
		n := min(len(data), cap(p.buffer)-len(p.buffer))
		p.buffer, data = append(p.buffer, data[:n]...), data[n:]
		if len(p.buffer) == cap(p.buffer) {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (p *parts) flush() error {
	if len(p.buffer) == 0 {
		return nil
	}
	err := p.stream.Send(&hubv1.BackupPart{Data: p.buffer})
	p.buffer = nil
	return err
}
