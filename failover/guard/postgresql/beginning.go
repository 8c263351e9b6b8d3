package postgresql

import (
	"context"
	"fmt"
	"os"
	"strings"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
)

// recordsOfAPromotion is how many records a new timeline may begin with until the one
// of the promotion itself is among them: one may come first, of a setting that the new
// primary has otherwise.
const recordsOfAPromotion = 8

// beginning is the log with which the copy's timeline begins, through the record of
// the promotion. That holds the promotion's time in microseconds, so it is what tells
// two timelines of one number apart. It is empty when the copy has no such record:
// on timeline 1, when the file is gone, and when the record is not here yet.
func (e *Copies) beginning(ctx context.Context, own wal.History) (log []byte, from wal.LSN, err error) {
	if len(own.Ended) == 0 {
		return nil, 0, nil
	}
	from = own.Ended[len(own.Ended)-1].LSN
	segments, size, err := e.segments()
	if err != nil {
		return nil, 0, err
	}
	first, last, found := stretch(segments, size, own.Current, from)
	if !found {
		return nil, 0, nil
	}
	dump := func(more ...string) (string, error) {
		args := append([]string{"--path", e.data("pg_wal"), "--start", from.String()}, more...)
		out, err := e.tool(ctx, "", "pg_waldump", append(args, first, last)...)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if len(out) > 0 {
			err = nil // it ends with an error where the log ends
		}
		return string(out), err
	}
	text, err := dump("--limit", fmt.Sprint(recordsOfAPromotion))
	if endsThere(err) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, fmt.Errorf("read where timeline %d begins: %w", own.Current, err)
	}
	records := throughPromotion(text, own.Current)
	if records == 0 {
		return nil, 0, nil
	}
	if text, err = dump("--limit", fmt.Sprint(records), "--stats=record"); err != nil {
		return nil, 0, err
	}
	stats, err := parseStats(text)
	if err != nil || stats == nil || stats.end <= from {
		return nil, 0, err
	}
	offset := int64(from) % size
	if offset+int64(stats.end-from) > size {
		return nil, 0, nil // it goes on in another file: as rare as it is short
	}
	file, err := os.Open(e.data("pg_wal", first))
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = file.Close() }() // only read
	log = make([]byte, stats.end-from)
	if _, err := file.ReadAt(log, offset); err != nil {
		return nil, 0, fmt.Errorf("read where timeline %d begins: %w", own.Current, err)
	}
	return log, from, nil
}

// throughPromotion is how many records pg_waldump has printed up to that of the
// promotion which began the timeline; 0 if that is not among them.
func throughPromotion(text string, timeline int64) (records int) {
	for line := range strings.Lines(text) {
		_, what, ok := strings.Cut(line, "desc: ")
		if !ok {
			continue
		}
		records++
		if strings.HasPrefix(what, fmt.Sprintf("END_OF_RECOVERY tli %d;", timeline)) {
			return records
		}
	}
	return 0
}
