package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// samplesPerHistory is how many marks are kept of the time within the history: it
// is kept for a tenth longer than asked at most.
const samplesPerHistory = 10

// history decides up to which revision superseded ones are dropped. It is fed with
// the revision now and then, on every member, so that a new leader knows where its
// predecessor stood.
type history struct {
	// keep is how long revisions stay; 0 or less bounds them by number alone.
	keep time.Duration
	// revisions is how many stay; 0 bounds them by age alone.
	revisions int64
	marks     []mark
}

// mark says that revision was the newest one at a time.
type mark struct {
	at       time.Time
	revision int64
}

// interval is how often note should be called; 0 if there is nothing to bound.
func (h *history) interval() time.Duration {
	switch {
	case h.keep > 0:
		return max(h.keep/samplesPerHistory, time.Second)
	case h.revisions > 0:
		return time.Minute
	}
	return 0
}

// note returns the revision to compact to, 0 for none: superseded revisions up to
// it are older than keep, or more than revisions ago.
func (h *history) note(now time.Time, revision int64) int64 {
	h.marks = append(h.marks, mark{now, revision})
	due := int64(0)
	if h.keep > 0 {
		// The newest mark that is old enough stays: it is the oldest that is known.
		for len(h.marks) > 1 && now.Sub(h.marks[1].at) >= h.keep {
			h.marks = h.marks[1:]
		}
		if now.Sub(h.marks[0].at) >= h.keep {
			due = h.marks[0].revision
		}
	} else {
		h.marks = nil
	}
	if h.revisions > 0 {
		due = max(due, revision-h.revisions)
	}
	return due
}

// compactor bounds the history also if no client does. The hub's API servers
// compact every five minutes themselves.
type compactor struct {
	history history
	leading func() bool
	// revision is the newest one, compacted the one last compacted to.
	revision, compacted func() int64
	compact             func(ctx context.Context, revision int64) error
	log                 *slog.Logger
}

func newCompactor(s *Store, cfg Config) *compactor {
	return &compactor{
		history: history{keep: cfg.History, revisions: cfg.HistoryRevisions},
		leading: s.IsLeader, revision: s.Revision, compacted: s.machine.kv.FirstRev,
		compact: func(ctx context.Context, revision int64) error {
			_, err := s.Propose(ctx, Compact(&pb.CompactionRequest{Revision: revision}))
			return err
		},
		log: cfg.Logger,
	}
}

func (c *compactor) run(ctx context.Context) {
	interval := c.history.interval()
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		due := c.history.note(time.Now(), c.revision())
		if due > max(c.compacted(), 0) && c.leading() { // -1: never compacted
			switch err := c.compact(ctx, due); {
			case err == nil:
				c.log.Info("superseded revisions are dropped", "revision", due)
			case ctx.Err() == nil && !errors.Is(err, mvcc.ErrCompacted):
				c.log.Warn("superseded revisions are not dropped yet", "revision", due, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
