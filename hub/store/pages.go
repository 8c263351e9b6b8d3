package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"golang.org/x/sys/unix"
)

// pagesInterval is how long pages of the database stay mapped that were read once.
const pagesInterval = time.Minute

// pages lets go of the database's pages in this process's memory. bbolt maps the whole
// file, and a page that was read once stays mapped, so that after an audit, a
// compaction or reads all over the history a member looks as large as its file, and
// the kernel takes such pages back later than others. The pages stay in the
// kernel's cache of the file; what is read again is mapped again, sixteen pages at a
// time, without reading the disk.
type pages struct {
	machine *machine
	log     *slog.Logger
}

func (p *pages) run(ctx context.Context) {
	tick := time.NewTicker(pagesInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := p.machine.letGoOfPages(); err != nil {
				p.log.Debug("pages of the database stay in memory", "error", err)
			}
		}
	}
}

// letGoOfPages unmaps what was read of the database, for the moment.
func (s *machine) letGoOfPages() error {
	path, err := filepath.EvalSymlinks(s.path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", s.path, err)
	}
	var failed error
	s.use(func(b backend.Backend) {
		// As long as it is read bbolt maps the file nowhere else, and nothing else is
		// mapped where it was.
		reading := b.Snapshot()
		failed = letGo(path)
		if err := reading.Close(); failed == nil {
			failed = err
		}
	})
	return failed
}

func letGo(path string) error {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	defer func() { _ = maps.Close() }() // it was read
	mapped, err := mappingsOf(path, maps)
	if err != nil {
		return err
	}
	for _, m := range mapped {
		// The mapping is shared and never written through, so nothing is lost.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of the pages of %s: %w", path, errno)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// mappingsOf reads where path is mapped, shared and for reading only, from a text in
// the form of /proc/PID/maps.
func mappingsOf(path string, maps io.Reader) ([]mapping, error) {
	var found []mapping
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// start-end perms offset device inode path; only the path may have spaces.
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "r--s" || !strings.HasSuffix(lines.Text(), " "+path) {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || end <= start {
			return nil, fmt.Errorf("read where %s is mapped: %q is not a range of addresses", path, fields[0])
		}
		found = append(found, mapping{uintptr(start), uintptr(end)})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what is mapped: %w", err)
	}
	return found, nil
}
