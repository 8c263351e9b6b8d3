package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// sealedSnapshots is Raft's store of snapshots with a checksum of each one's
// meta.json, which says of which entry, term and members it is. (The content has
// checksums already.) The checksum is written once a snapshot is complete, before
// Raft relies on it; a snapshot without one was cut short by a crash.
type sealedSnapshots struct {
	raft.SnapshotStore
	dir string
	log *slog.Logger
}

type sealingSink struct {
	raft.SnapshotSink
	dir string
}

func openSnapshots(dataDir string, log *slog.Logger) (sealedSnapshots, error) {
	dir := filepath.Join(dataDir, "raft")
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, raftLogTo(log))
	if err != nil {
		return sealedSnapshots{}, fmt.Errorf("store: open snapshots: %w", err)
	}
	return sealedSnapshots{SnapshotStore: inner, dir: filepath.Join(dir, "snapshots"), log: log}, nil
}

// Create implements raft.SnapshotStore.
func (s sealedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, members, membersIndex, t)
	return sealingSink{sink, s.dir}, err
}

// Close implements raft.SnapshotSink.
func (s sealingSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	sum, err := metaSum(s.dir, s.ID())
	if err != nil {
		return err
	}
	f, err := os.Create(sumFile(s.dir, s.ID()))
	if err != nil {
		return fmt.Errorf("seal snapshot: %w", err)
	}
	_, err = f.Write(sum)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("seal snapshot: %w", err)
	}
	return nil
}

// List implements raft.SnapshotStore.
func (s sealedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	var out []*raft.SnapshotMeta
	for _, meta := range all {
		want, err := os.ReadFile(sumFile(s.dir, meta.ID))
		if errors.Is(err, os.ErrNotExist) || err == nil && len(want) == 0 {
			s.log.Info("a snapshot was cut short and is not used", "snapshot", meta.ID)
			continue
		}
		sum, e := metaSum(s.dir, meta.ID)
		if err := errors.Join(err, e); err != nil {
			return nil, err
		}
		if string(sum) != string(want) {
			return nil, fmt.Errorf("meta.json of snapshot %s: %w: %s", filepath.Join(s.dir, meta.ID), errAltered, startAfresh)
		}
		out = append(out, meta)
	}
	return out, nil
}

func sumFile(dir, id string) string { return filepath.Join(dir, id, "meta.sum") }

func metaSum(dir, id string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, id, "meta.json"))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}
