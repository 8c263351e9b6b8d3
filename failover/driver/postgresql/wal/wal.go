// Package wal is the arithmetic of PostgreSQL's log: positions, timelines and
// where two histories part. It is pure.
package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the log, in bytes.
type LSN uint64

// ParseLSN reads X/Y as PostgreSQL prints it.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%q is not a log position, expected X/Y", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("log position %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("log position %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// String prints X/Y.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// End is where a timeline ended and the next one began.
type End struct {
	Timeline int64
	LSN      LSN
}

// History is how a copy came to its timeline: the timelines that ended, oldest
// first, and the present one.
type History struct {
	Ended   []End
	Current int64
}

// ParseHistory reads the text of a history file of timeline current. The file
// of timeline 1 does not exist: its text is empty.
func ParseHistory(text string, current int64) (History, error) {
	h := History{Current: current}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return h, fmt.Errorf("history of timeline %d: line %q has no position", current, strings.TrimSpace(line))
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return h, fmt.Errorf("history of timeline %d: %w", current, err)
		}
		lsn, err := ParseLSN(fields[1])
		if err != nil {
			return h, fmt.Errorf("history of timeline %d: %w", current, err)
		}
		h.Ended = append(h.Ended, End{timeline, lsn})
	}
	return h, nil
}

// timelines lists every timeline of h with its end; the present one has none.
func (h History) timelines() []End {
	return append(append([]End(nil), h.Ended...), End{Timeline: h.Current, LSN: ^LSN(0)})
}

// Fork returns the last timeline that two histories share and the position up
// to which they share it: the maximum LSN where neither has ended it, which is
// when one of them is still on it and so is the other. ok is false when they
// share nothing.
func Fork(a, b History) (timeline int64, at LSN, ok bool) {
	as, bs := a.timelines(), b.timelines()
	for i := 0; i < len(as) && i < len(bs); i++ {
		if as[i].Timeline != bs[i].Timeline {
			break
		}
		timeline, at, ok = as[i].Timeline, min(as[i].LSN, bs[i].LSN), true
		if as[i].LSN != bs[i].LSN {
			break
		}
	}
	return timeline, at, ok
}

// End returns where timeline t ended in h; the present one is Endless, and one
// that is not in h ends at zero.
func (h History) End(t int64) LSN {
	for _, e := range h.timelines() {
		if e.Timeline == t {
			return e.LSN
		}
	}
	return 0
}

// Parent is the timeline from which the present one was begun, and where; ok is false
// on the first one.
func (h History) Parent() (parent End, ok bool) {
	if len(h.Ended) == 0 {
		return End{}, false
	}
	return h.Ended[len(h.Ended)-1], true
}

// Next returns the timeline that follows t in h, zero when t is the present one
// or not in h.
func (h History) Next(t int64) int64 {
	all := h.timelines()
	for i, e := range all {
		if e.Timeline == t && i+1 < len(all) {
			return all[i+1].Timeline
		}
	}
	return 0
}

// Endless is the fork of two histories that are on the same timeline.
const Endless = ^LSN(0)
