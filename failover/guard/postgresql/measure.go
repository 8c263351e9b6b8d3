package postgresql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// control is what pg_controldata says of a stopped copy.
type control struct {
	system     string
	timeline   int64
	checkpoint wal.LSN
	redo       wal.LSN
	recovered  wal.LSN // minimum recovery ending location
}

func (p *place) control(ctx context.Context) (control, error) {
	out, err := p.tool(ctx, "", "pg_controldata", "-D", p.data())
	if err != nil {
		return control{}, fmt.Errorf("read pg_control: %w", err)
	}
	return parseControl(string(out))
}

func parseControl(text string) (c control, err error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	position := func(name string) wal.LSN {
		lsn, e := wal.ParseLSN(fields[name])
		err = errors.Join(err, e)
		return lsn
	}
	c.system = fields["Database system identifier"]
	c.checkpoint = position("Latest checkpoint location")
	c.redo = position("Latest checkpoint's REDO location")
	c.recovered = position("Minimum recovery ending location")
	checkpointed, e1 := strconv.ParseInt(fields["Latest checkpoint's TimeLineID"], 10, 64)
	recovered, e2 := strconv.ParseInt(fields["Min recovery ending loc's timeline"], 10, 64)
	c.timeline = max(checkpointed, recovered)
	return c, errors.Join(err, e1, e2)
}

// Measure reads the copy's log from the fork on. The copy is not started and
// not recovered for it: recovery would write.
func (e *Copies) Measure(ctx context.Context, source *agentv1.SourceFacts) (*agentv1.Divergence, error) {
	c, err := e.control(ctx)
	if err != nil {
		return nil, err
	}
	own, err := e.history(ctx, c)
	if err != nil {
		return nil, err
	}
	theirs, reached, err := sourceHistory(source)
	if err != nil {
		return nil, err
	}
	timeline, at, shared := wal.Fork(own, theirs)
	if !shared || c.system != source.GetSystemIdentifier() {
		return &agentv1.Divergence{Measured: true, Foreign: true, EndPosition: c.checkpoint.String(), EndTimeline: own.Current}, nil
	}
	// On one timeline the copy may be behind the source and never ahead.
	at = min(at, reached)
	d := &agentv1.Divergence{Measured: true, ForkTimeline: timeline, ForkPosition: at.String(), EndTimeline: own.Current}
	end := max(c.checkpoint, c.recovered)
	switch stats, err := e.readLog(ctx, timeline, c.redo); {
	case err != nil:
		return nil, err
	case stats != nil:
		end = max(end, stats.end)
	}
	// The redo position may be on an earlier timeline than the log's end is.
	switch stats, err := e.readLog(ctx, timeline, at); {
	case err != nil:
		return nil, err
	case stats != nil:
		end = max(end, stats.end)
	}
	if own.Current != timeline {
		// The copy left the shared timeline too: all of its own one is past.
		end = max(end, at+1)
	}
	if end > at {
		if err := e.measurePast(ctx, d, own, timeline, at); err != nil {
			return nil, err
		}
		end = max(end, at+wal.LSN(d.GetBytes()))
		d.Bytes = int64(end - at)
	}
	d.EndPosition = end.String()
	if own.Current == timeline {
		d.Beginning, d.BeginningPosition, err = e.beginning(ctx, own)
	}
	return d, err
}

// measurePast counts what comes after the fork, on every timeline of the copy.
func (e *Copies) measurePast(ctx context.Context, d *agentv1.Divergence, own wal.History, timeline int64, at wal.LSN) error {
	for from := at; timeline != 0; timeline = own.Next(timeline) {
		if own.End(timeline) <= from {
			continue // it left that timeline at the fork: there may be no file of it any more
		}
		stats, err := e.readLog(ctx, timeline, from)
		if err != nil {
			return err
		}
		if stats == nil {
			// The log is there, by what pg_control says, and cannot be read.
			d.Measured = false
			continue
		}
		d.Records += stats.records
		d.Commits += stats.commits
		d.Bytes = int64(max(wal.LSN(d.Bytes), stats.end-at))
		from = stats.end
	}
	return nil
}

func sourceHistory(source *agentv1.SourceFacts) (h wal.History, reached wal.LSN, err error) {
	h.Current = source.GetTimeline()
	for _, end := range source.GetHistory() {
		lsn, err := wal.ParseLSN(end.GetEnd())
		if err != nil {
			return h, 0, err
		}
		h.Ended = append(h.Ended, wal.End{Timeline: end.GetTimeline(), LSN: lsn})
	}
	reached, err = wal.ParseLSN(source.GetPosition())
	return h, reached, err
}

// logStats sums up a stretch of the log.
type logStats struct {
	end     wal.LSN
	records int64
	commits int64
}

// readLog reads a timeline's log from a position to its end. It returns nil
// when no record is there.
//
// Both files are named to pg_waldump. By itself it learns the size of segments from
// whichever file it finds first, and reads nothing at all if that is one that
// PostgreSQL has made beforehand and not written to yet; and where the log ends with
// its last file it prints nothing of what it has read.
func (p *place) readLog(ctx context.Context, timeline int64, from wal.LSN) (*logStats, error) {
	segments, size, err := p.segments()
	if err != nil {
		return nil, err
	}
	first, last, found := stretch(segments, size, timeline, from)
	if !found {
		return nil, nil
	}
	return p.sum(ctx, from, first, last)
}

// sum sums up what the files from first to last hold from a position on.
func (p *place) sum(ctx context.Context, from wal.LSN, first, last string, more ...string) (*logStats, error) {
	text, err := p.dump(ctx, from, first, last, append(more, "--stats=record")...)
	if err != nil || text == "" {
		return nil, err
	}
	stats, err := parseStats(text)
	if err == nil && stats == nil {
		err = errors.New("pg_waldump has printed no statistics")
	}
	if err != nil {
		return nil, fmt.Errorf("read the log in %s from %v: %w", first, from, err)
	}
	return stats, nil
}

// dump is what pg_waldump prints of the files from first to last, from a position on;
// nothing when no record is there. It ends with an error where the log ends.
func (p *place) dump(ctx context.Context, from wal.LSN, first, last string, more ...string) (string, error) {
	args := append([]string{"--path", p.data("pg_wal"), "--start", from.String()}, more...)
	out, err := p.tool(ctx, "", "pg_waldump", append(args, first, last)...)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case len(out) > 0 || endsThere(err):
		return string(out), nil
	case err != nil:
		return "", fmt.Errorf("read the log in %s from %v: %w", first, from, err)
	}
	return "", fmt.Errorf("read the log in %s from %v: pg_waldump has printed nothing", first, from)
}

// endsThere is true when pg_waldump says that no record is where it was told to begin;
// it ends with an error where the log ends. That it could not be run, or was killed, is
// no word about the log.
func endsThere(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "could not find a valid record after") || strings.Contains(err.Error(), "header specifies 0 bytes"))
}

// stretch is the file of a timeline in which a position is, and the last of those
// that follow it without a gap. It is pure; size is that of a segment.
func stretch(segments []segment, size, timeline int64, from wal.LSN) (first, last string, found bool) {
	if size <= 0 {
		return "", "", false
	}
	perLog := int64(1<<32) / size
	for n := int64(from) / size; ; n++ {
		name := fmt.Sprintf("%08X%08X%08X", timeline, n/perLog, n%perLog)
		if !slices.ContainsFunc(segments, func(s segment) bool { return s.name == name }) {
			return first, last, first != ""
		}
		if last = name; first == "" {
			first = name
		}
	}
}

// parseStats reads what pg_waldump --stats=record prints.
func parseStats(text string) (*logStats, error) {
	_, table, found := strings.Cut(text, "WAL statistics between ")
	if !found {
		return nil, nil
	}
	bounds, table, _ := strings.Cut(table, ":\n")
	_, last, _ := strings.Cut(bounds, " and ")
	end, err := wal.ParseLSN(last)
	if err != nil {
		return nil, err
	}
	stats := &logStats{end: end}
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "Total":
			stats.records = n
		case "Transaction/COMMIT", "Transaction/COMMIT_PREPARED", "Transaction/PREPARE":
			stats.commits += n
		}
	}
	return stats, nil
}

// Position is where the stopped copy's log was last known to end.
func (e *Copies) Position(ctx context.Context) (string, int64, error) {
	c, err := e.control(ctx)
	if err != nil {
		return "", 0, err
	}
	end := max(c.checkpoint, c.recovered)
	if stats, err := e.readLog(ctx, c.timeline, c.redo); err == nil && stats != nil {
		end = max(end, stats.end)
	}
	return end.String(), c.timeline, nil
}

// aside is the folder where what an epoch would discard is kept.
func (e *Copies) aside(epoch int64) (string, error) {
	for n := 1; ; n++ {
		path := e.volume.Path("tripod", "aside", fmt.Sprintf("epoch-%d-%d", epoch, n))
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return path, os.MkdirAll(filepath.Dir(path), 0o700)
		}
	}
}
