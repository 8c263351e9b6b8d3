package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/backend"
)

// ErrBusy says that the database file of this member is being copied or rewritten.
var ErrBusy = errors.New("store: a backup or a snapshot of this member is being written, or its database rewritten: try again when that is done")

// Defragment rewrites the file without its holes. Reads and writes of this
// member's clients wait meanwhile, the rest of the hub does not; Raft on this
// member goes on. The new file is put in place of the old one in one step, so a
// crash leaves one or the other whole, with the same content.
//
// It is refused (ErrBusy) while the file is being copied: it would wait for the
// copy, however slow its reader is, and hold up everything. It takes as much of
// the disk as the file has in use.
func (m *Maintenance) Defragment() error {
	machine := m.store.machine
	if !machine.copying.TryLock() {
		return ErrBusy
	}
	defer machine.copying.Unlock()
	before, used := m.Size()
	if err := m.store.space.check(m.store.space.reserve + uint64(max(used, 0))); err != nil {
		return fmt.Errorf("defragment %s, of which %d MiB are in use: %w", machine.path, used>>20, err)
	}
	if err := machine.fail.At(BeforeDefragment); err != nil {
		return fmt.Errorf("defragment %s: %w", machine.path, err)
	}
	start := time.Now()
	var err error
	machine.use(func(b backend.Backend) { err = b.Defrag() })
	if err != nil {
		return fmt.Errorf("defragment %s: %w", machine.path, err)
	}
	took := time.Since(start)
	machine.metrics.defragmentations.Observe(took.Seconds())
	after, _ := m.Size()
	m.store.log.Info("database defragmented", "before", before, "after", after, "took", took)
	return machine.fail.At(AfterDefragment)
}

// Defragment has a member, this one too, rewrite its file; see
// Maintenance.Defragment.
func (m *Membership) Defragment(ctx context.Context, name string) error {
	if name == m.Self() {
		return m.store.Maintenance().Defragment()
	}
	conn, err := m.store.peers.ready(ctx, name)
	if err == nil {
		_, err = pb.NewMaintenanceClient(conn).Defragment(ctx, &pb.DefragmentRequest{})
	}
	if err != nil {
		return fmt.Errorf("defragment member %q: %w", name, err)
	}
	return nil
}
