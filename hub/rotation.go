package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/encryption"
)

// registryPrefix is where the API server keeps everything.
const registryPrefix = "/registry/"

// rewrites is how often what a writer was still writing with the old key is looked
// for and written again.
const rewrites = 3

// settle is how long something that was encrypted before a member had a new ring may
// still be on its way into the store: the store gives up a proposal before that.
const settle = 10 * time.Second

// rotation replaces the key that encrypts what the API servers keep. Every step is
// on every member before the next begins, and a rotation that was cut short is
// begun again where it was, by whoever leads then; see encryption.Ring.Rotation.
type rotation struct {
	member *Member
	acting sync.Mutex
}

// Set implements rpc.Encryption.
func (r *rotation) Set(configuration []byte) error {
	m := r.member
	if err := m.ownKeys(); err != nil {
		return err
	}
	ring, err := encryption.ParseRing(configuration)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := errors.Join(m.identity.SetEncryption(configuration), m.box.Reload()); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	m.logger.Info("encryption keys are in force", "keys", ring.Names())
	return nil
}

// ownKeys refuses what an operator's own configuration decides.
func (m *Member) ownKeys() error {
	if m.config.EncryptionConfigFile == "" {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "member %s encrypts by %s: rotate the key there, as Kubernetes' documentation says, on all members", m.config.Name, m.config.EncryptionConfigFile)
}

// Rotate implements rpc.Encryption.
func (r *rotation) Rotate(ctx context.Context, give func(context.Context, string, []byte) error) (string, error) {
	if !r.acting.TryLock() {
		return "", status.Error(codes.FailedPrecondition, "a rotation is under way: wait for it")
	}
	defer r.acting.Unlock()
	m := r.member
	if err := m.ownKeys(); err != nil {
		return "", err
	}
	ring, err := encryption.ParseRing(m.identity.Encryption())
	if err != nil {
		return "", status.Error(codes.FailedPrecondition, err.Error())
	}
	known, used, alone, err := ring.Rotation(time.Now())
	if err != nil {
		return "", status.Error(codes.Internal, err.Error())
	}
	for _, step := range []encryption.Ring{known, used} {
		if err := r.everywhere(ctx, step, give); err != nil {
			return "", err
		}
	}
	count, err := r.rewrite(ctx, alone[0].Name, time.After(settle))
	if err != nil {
		return "", status.Errorf(codes.Unavailable, "%v; the old keys are kept, and the command can be repeated", err)
	}
	// What is superseded is still encrypted with the old key, and nobody may read it
	// when that is forgotten.
	if _, err := m.store.Maintenance().Compact(ctx, 0); err != nil {
		return "", status.Errorf(codes.Unavailable, "%v; the old keys are kept, and the command can be repeated", err)
	}
	if err := r.everywhere(ctx, alone, give); err != nil {
		return "", err
	}
	return fmt.Sprintf("key %s encrypts %d objects, and the old keys are forgotten; keep a new copy of the folder pki beside the next backup, and the old copy as long as the older backups", alone[0].Name, count), nil
}

// everywhere returns when all members have the ring in force.
func (r *rotation) everywhere(ctx context.Context, ring encryption.Ring, give func(context.Context, string, []byte) error) error {
	text, err := ring.Text()
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	membership := r.member.store.Membership()
	for _, info := range membership.List() {
		if info.Name == membership.Self() {
			err = r.Set(text)
		} else {
			err = give(ctx, info.Name, text)
		}
		if err != nil {
			return status.Errorf(codes.FailedPrecondition, "member %s has not got the keys, and no key is used before all members know it: %s; the command can be repeated",
				info.Name, status.Convert(err).Message())
		}
	}
	return nil
}

// rewrite has everything written again until nothing is left that needs another key
// than name, and nothing can come any more, which settled says. It returns how many
// objects are encrypted.
func (r *rotation) rewrite(ctx context.Context, name string, settled <-chan time.Time) (count int, err error) {
	m := r.member
	for i := range rewrites {
		if err := m.apiserver.RewriteAll(ctx); err != nil {
			return 0, err
		}
		if i == 0 {
			select {
			case <-settled:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		if err := m.store.Linearize(ctx); err != nil {
			return 0, err
		}
		var left []string
		count = 0
		if err := m.store.Each(ctx, registryPrefix, func(kv mvccpb.KeyValue) error {
			switch encryption.KeyOf(kv.Value) {
			case name:
				count++
			case "":
			default:
				left = append(left, string(kv.Key))
			}
			return nil
		}); err != nil {
			return 0, err
		}
		if len(left) == 0 {
			return count, nil
		}
		err = fmt.Errorf("%d objects are still encrypted with an older key: %s: delete them or mend what keeps them from being written",
			len(left), strings.Join(left[:min(len(left), 5)], ", "))
	}
	return 0, err
}
