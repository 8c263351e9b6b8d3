package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// spaceInterval is how often the free space is read. What is logged in between
// is subtracted.
const spaceInterval = 500 * time.Millisecond

// space watches what there is room for: the free space under the data directory,
// and the quota of the database. Under either limit what grows is refused; see
// grows.
//
// Neither the Raft log nor bbolt survives a full disk in flight, so the store
// stops short of it: growth ends under the reserve; under half of it nothing is
// logged, which also bounds what bbolt can still have to write. That is a matter
// of this member: it gives leadership away and the others go on. The quota is a
// matter of the hub, whose members all hold the same: when the leader's database
// is over it, the leader commits an alarm; see alarms.go.
type space struct {
	path    string
	reserve uint64
	log     *slog.Logger
	free    atomic.Int64
	low     atomic.Bool
	statfs  func(path string) (free uint64, err error)

	// quota bounds what is in use of the database, in bytes; inUse reads that and
	// is nil until there is a database.
	quota int64
	inUse func() int64
	used  atomic.Int64
}

type noSpaceError struct {
	path          string
	free, reserve uint64
}

func (e *noSpaceError) Error() string {
	return fmt.Sprintf("no space left under %s: %d MiB free, %d MiB are kept in reserve: free some or grow the volume; nothing is lost and reads go on",
		e.path, e.free>>20, e.reserve>>20)
}

func (e *noSpaceError) Is(target error) bool { return target == ErrNoSpace }

func newSpace(path string, reserve uint64, quota int64, log *slog.Logger) (*space, error) {
	s := &space{path: path, reserve: reserve, quota: quota, log: log, statfs: freeSpace}
	if err := s.measure(); err != nil {
		return nil, err
	}
	if err := s.check(reserve / 2); err != nil {
		return nil, fmt.Errorf("store: refusing to start: %w", err)
	}
	return s, nil
}

func freeSpace(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

func (s *space) measure() error {
	if s.inUse != nil {
		s.used.Store(s.inUse())
	}
	free, err := s.statfs(s.path)
	if err != nil {
		return err
	}
	s.free.Store(int64(free))
	if low := free < s.reserve; low != s.low.Swap(low) {
		if low {
			s.log.Error("disk space is short, key-value writes are refused", "error", s.check(s.reserve))
		} else {
			s.log.Info("disk space is back, key-value writes are accepted", "path", s.path)
		}
	}
	return nil
}

func (s *space) check(reserve uint64) error {
	free := max(s.free.Load(), 0)
	if uint64(free) >= reserve {
		return nil
	}
	return &noSpaceError{path: s.path, free: uint64(free), reserve: reserve}
}

// over says whether the database is over its quota.
func (s *space) over() bool { return s.used.Load() > s.quota }

// relieved says whether the database is so far under its quota that the alarm
// need not come back at once.
func (s *space) relieved() bool { return s.used.Load() < relief(s.quota) }

// relief is the size under which the alarm goes by itself: 90 % of the quota.
func relief(quota int64) int64 { return quota / 10 * 9 }

// short says whether not everything may be proposed.
func (s *space) short() bool { return s.over() || s.check(s.reserve) != nil }

// admit says whether a command may be proposed.
func (s *space) admit(growing bool) error {
	if !growing {
		return s.check(s.reserve / 2)
	}
	if s.over() {
		return ErrNoSpace
	}
	return s.check(s.reserve)
}

func (s *space) run(ctx context.Context) {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.measure(); err != nil {
				s.log.Warn("free space is unknown", "error", err)
			}
		}
	}
}
