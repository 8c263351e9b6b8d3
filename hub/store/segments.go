package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// segments opens the files of the Raft log. raft-wal 0.4.0 seals the file in
// which it cuts off a conflicting end of the log without writing its index, and
// then cannot read that file after a restart ("sealed segment has no index
// block"). Such a file is scanned instead, as the last file of a log always is.
type segments struct{ types.SegmentFiler }

func newSegments(dir string, fail Failpoints) segments {
	var files types.VFS = logFiles{fs.New()}
	if fail != nil {
		files = failingFiles{files, fail}
	}
	return segments{segment.NewFiler(dir, files)}
}

// Open implements types.SegmentFiler.
func (s segments) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart != 0 {
		return s.SegmentFiler.Open(info)
	}
	return s.RecoverTail(info)
}

// finishRotation begins a new file of the log if the last one is full. raft-wal 0.4.0
// does so after the write that fills it, beside what follows; killed in between, it
// opens the full file again as its last one, and refuses every write from then on
// ("segment is sealed"). What it says of the log is written to meta.
func finishRotation(dir string, files types.SegmentFiler, meta types.MetaStore, bytes int) error {
	log, err := meta.Load(dir)
	if err != nil {
		return fmt.Errorf("read which files the log has: %w", err)
	}
	n := len(log.Segments)
	if n == 0 || !log.Segments[n-1].SealTime.IsZero() {
		return nil
	}
	last := &log.Segments[n-1]
	full, end, err := fullAt(files, *last)
	if err != nil || !full {
		return err
	}
	next := types.SegmentInfo{ID: log.NextSegmentID, BaseIndex: end + 1, SizeLimit: uint32(bytes), Codec: last.Codec, CreateTime: time.Now()}
	if end < last.BaseIndex { // nothing of its only write was complete
		next.BaseIndex, log.Segments = last.BaseIndex, log.Segments[:n-1]
	} else {
		// Without IndexStart it is scanned, see segments.Open: its index may be torn.
		last.MaxIndex, last.SealTime = end, time.Now()
	}
	next.MinIndex = next.BaseIndex
	log.NextSegmentID++
	log.Segments = append(log.Segments, next)
	if err := meta.CommitState(log); err != nil {
		return fmt.Errorf("begin a new file of the log after entry %d: %w", end, err)
	}
	return nil
}

// fullAt says whether the last file of the log takes no more entries, and where it
// ends.
func fullAt(files types.SegmentFiler, info types.SegmentInfo) (full bool, end uint64, err error) {
	file, err := files.RecoverTail(info)
	if errors.Is(err, os.ErrNotExist) {
		return false, 0, nil // it is made when the log is opened
	}
	if err != nil {
		return false, 0, fmt.Errorf("read the last file of the log: %w", err)
	}
	full, _, err = file.Sealed()
	return full, file.LastIndex(), errors.Join(err, file.Close())
}
