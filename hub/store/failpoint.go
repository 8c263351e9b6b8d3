package store

import (
	"github.com/hashicorp/raft-wal/types"
)

// Point is a step of a member at which a test can make it fail.
type Point string

// The points. Those of the log come on every member, in the order in which an
// entry passes them.
const (
	BeforeLogAppend Point = "beforeLogAppend"
	BeforeLogSync   Point = "beforeLogSync"
	AfterLogSync    Point = "afterLogSync"
	// AfterLogAppend: on disk here, and Raft has not been told.
	AfterLogAppend Point = "afterLogAppend"
	BeforeApply    Point = "beforeApply"
	// AfterApply: applied here, and nobody has been told.
	AfterApply Point = "afterApply"
	// BeforeCommit: bbolt is about to write what was applied since its last commit.
	BeforeCommit Point = "beforeCommit"

	BeforeCompact Point = "beforeCompact"
	// AfterCompact: decided; freeing the space goes on beside other entries.
	AfterCompact Point = "afterCompact"

	BeforeSnapshotSave Point = "beforeSnapshotSave"
	// DuringSnapshotSave: written, and not yet kept.
	DuringSnapshotSave Point = "duringSnapshotSave"
	AfterSnapshotSave  Point = "afterSnapshotSave"
	BeforeRestore      Point = "beforeRestore"
	// DuringRestore: received and checked, not yet in the place of the database.
	DuringRestore Point = "duringRestore"
	// AfterRestore: in its place, not yet read.
	AfterRestore Point = "afterRestore"

	BeforeDefragment Point = "beforeDefragment"
	// AfterDefragment: the file without holes is in the place of the old one.
	AfterDefragment Point = "afterDefragment"

	BeforeWatchSend Point = "beforeWatchSend"
	AfterWatchSend  Point = "afterWatchSend"
)

// Points lists all points.
var Points = []Point{
	BeforeLogAppend, BeforeLogSync, AfterLogSync, AfterLogAppend, BeforeApply, AfterApply, BeforeCommit,
	BeforeCompact, AfterCompact, BeforeSnapshotSave, DuringSnapshotSave, AfterSnapshotSave,
	BeforeRestore, DuringRestore, AfterRestore, BeforeWatchSend, AfterWatchSend,
}

// Failpoints is called at every point, by several goroutines. It may take its
// time or end the process. An error is what the disk, or for a watch the
// network, would have said; where the step itself cannot fail, the member stops.
// Nil, as in production, does nothing.
type Failpoints func(Point) error

// At is called where p is passed.
func (f Failpoints) At(p Point) error {
	if f == nil {
		return nil
	}
	return f(p)
}

// failingFiles makes syncs of the Raft log's files pass their points.
type failingFiles struct {
	types.VFS
	fail Failpoints
}

// Create implements types.VFS.
func (f failingFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := f.VFS.Create(dir, name, size)
	return failingFile{file, f.fail}, err
}

// OpenWriter implements types.VFS.
func (f failingFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := f.VFS.OpenWriter(dir, name)
	return failingFile{file, f.fail}, err
}

type failingFile struct {
	types.WritableFile
	fail Failpoints
}

// Sync implements types.WritableFile.
func (f failingFile) Sync() error {
	if err := f.fail.At(BeforeLogSync); err != nil {
		return err
	}
	if err := f.WritableFile.Sync(); err != nil {
		return err
	}
	return f.fail.At(AfterLogSync)
}
