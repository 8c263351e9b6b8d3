package postgresql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
)

// history reads the copy's own: its timeline is the highest one it has a record of. A
// replica makes the first file of a timeline before anything of it has arrived, and
// one that is stopped then has nothing of that timeline, and knows nothing of it.
func (p *place) history(ctx context.Context, c control) (wal.History, error) {
	current := c.timeline
	segments, _, err := p.segments()
	if err != nil {
		return wal.History{}, err
	}
	for _, s := range segments {
		// One without a history is left over from a rewind, or from a promotion that
		// was not finished: no record is in it.
		if _, err := os.Stat(p.data("pg_wal", historyName(s.timeline))); err == nil {
			current = max(current, s.timeline)
		}
	}
	for {
		h, err := p.historyOf(current)
		parent, begun := h.Parent()
		if err != nil || current <= c.timeline || !begun {
			return h, err
		}
		stats, err := p.readLog(ctx, current, parent.LSN)
		if err != nil || stats != nil {
			return h, err
		}
		current = parent.Timeline
	}
}

func (p *place) historyOf(timeline int64) (wal.History, error) {
	text, err := os.ReadFile(p.data("pg_wal", historyName(timeline)))
	if err != nil && (timeline > 1 || !errors.Is(err, fs.ErrNotExist)) {
		return wal.History{}, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	return wal.ParseHistory(string(text), timeline)
}

// dropUnwritten removes what a stopped replica has of timelines of which it holds no
// record: their histories, and files in which at most a piece of the log before the
// fork has arrived again. PostgreSQL would read that piece in place of the whole file
// of the older timeline, and end where the piece does. Not concurrently with the database.
func (p *place) dropUnwritten(ctx context.Context) error {
	c, err := p.control(ctx)
	if err != nil {
		return err
	}
	segments, _, err := p.segments()
	if err != nil {
		return err
	}
	histories, err := p.histories()
	if err != nil {
		return err
	}
	later := func(timeline int64) bool { return timeline > c.timeline }
	if !slices.ContainsFunc(segments, func(s segment) bool { return later(s.timeline) }) && !slices.ContainsFunc(histories, later) {
		return nil
	}
	own, err := p.history(ctx, c)
	if err != nil {
		return err
	}
	for _, s := range segments {
		if s.timeline > own.Current {
			err = errors.Join(err, os.Remove(p.data("pg_wal", s.name)))
		}
	}
	if err != nil {
		return err // a file without its history could not be measured
	}
	for _, timeline := range histories {
		if timeline > own.Current {
			err = errors.Join(err, os.Remove(p.data("pg_wal", historyName(timeline))))
		}
	}
	return err
}

func historyName(timeline int64) string { return fmt.Sprintf("%08X.history", timeline) }

// histories are the timelines of which the copy has the history.
func (p *place) histories() ([]int64, error) {
	entries, err := os.ReadDir(p.data("pg_wal"))
	if err != nil {
		return nil, err
	}
	var timelines []int64
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), ".history")
		if timeline, err := strconv.ParseInt(name, 16, 64); found && err == nil {
			timelines = append(timelines, timeline)
		}
	}
	return timelines, nil
}

type segment struct {
	name     string
	timeline int64
}

// segments lists the files of the copy's log; size is that of one, in bytes.
func (p *place) segments() (segments []segment, size int64, err error) {
	entries, err := os.ReadDir(p.data("pg_wal"))
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if len(name) != 24 || strings.Trim(name, "0123456789ABCDEF") != "" {
			continue
		}
		timeline, err := strconv.ParseInt(name[:8], 16, 64)
		if err != nil {
			return nil, 0, err
		}
		segments = append(segments, segment{name, timeline})
		if info, err := entry.Info(); err == nil {
			size = max(size, info.Size())
		}
	}
	return segments, size, nil
}
