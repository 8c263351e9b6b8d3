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
func (e *Copies) beginning(ctx context.Context, own wal.History) (log []byte, position string, err error) {
	parent, begun := own.Parent()
	if !begun {
		return nil, "", nil
	}
	from := parent.LSN
	segments, size, err := e.segments()
	if err != nil {
		return nil, "", err
	}
	first, last, found := stretch(segments, size, own.Current, from)
	if !found {
		return nil, "", nil
	}
	text, err := e.dump(ctx, from, first, last, "--limit", fmt.Sprint(recordsOfAPromotion))
	if err != nil {
		return nil, "", err
	}
	records := throughPromotion(text, own.Current)
	if records == 0 {
		return nil, "", nil
	}
	stats, err := e.sum(ctx, from, first, last, "--limit", fmt.Sprint(records))
	if err != nil || stats == nil || stats.end <= from {
		return nil, "", err
	}
	offset := int64(from) % size
	if offset+int64(stats.end-from) > size {
		return nil, "", nil // it goes on in another file: as rare as it is short
	}
	file, err := os.Open(e.data("pg_wal", first))
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = file.Close() }() // only read
	log = make([]byte, stats.end-from)
	if _, err := file.ReadAt(log, offset); err != nil {
		return nil, "", fmt.Errorf("read where timeline %d begins: %w", own.Current, err)
	}
	return log, from.String(), nil
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
