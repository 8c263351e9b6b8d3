package store

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// logFiles are the files of the Raft log, which is synced with every write of the hub. A
// sync costs what it finds changed, so they change as little as they can (decision 0017).
type logFiles struct{ types.VFS }

// Create implements types.VFS.
func (l logFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := l.VFS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return newLogFile(file, int64(size)), nil
}

// OpenWriter implements types.VFS.
func (l logFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("open a file of the log: %w", err)
	}
	file, err := l.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return newLogFile(file, info.Size()), nil
}

// logFile is written and synced by one goroutine at a time, as a log is.
//
// A file is allocated when it is made, but its blocks are marked as not written: the
// first sync of each has to change that mark, too. So zeros are written a little ahead of
// the entries, which does that once for many of them. They change nothing that is
// read: blocks that are not written read as zeros.
type logFile struct {
	types.WritableFile
	size  int64    // what is allocated
	until int64    // where what was written ends, entries or zeros
	data  *os.File // nil: every sync is a whole one
	whole bool     // it was synced with all that is known of it
}

func newLogFile(file types.WritableFile, size int64) *logFile {
	l := &logFile{WritableFile: file, size: size}
	switch file := file.(type) {
	case *fs.File:
		l.data = &file.File
	case *os.File:
		l.data = file
	}
	return l
}

// zeroesAhead is a size that disks take in one write.
const zeroesAhead = 256 << 10

var zeroes [zeroesAhead]byte

// WriteAt implements io.WriterAt. That zeros could not be written is no failure: it
// costs what it costs without them.
func (l *logFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := l.WritableFile.WriteAt(p, at)
	end := at + int64(n)
	if err != nil || end <= l.until {
		return n, err
	}
	l.until = end
	if ahead := min(zeroesAhead, l.size-end); ahead > 0 {
		if _, err := l.WritableFile.WriteAt(zeroes[:ahead], end); err == nil {
			l.until = end + ahead
		}
	}
	return n, nil
}

// Sync syncs the file and its folder once, and then only what it takes to read what
// was written: not when that was.
func (l *logFile) Sync() error {
	if l.whole && l.data != nil {
		return fileutil.Fdatasync(l.data)
	}
	err := l.WritableFile.Sync()
	l.whole = err == nil
	return err
}
