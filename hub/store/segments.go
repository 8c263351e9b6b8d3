package store

import (
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
	var files types.VFS = fs.New()
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
