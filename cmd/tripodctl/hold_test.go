package main

import (
	"testing"
	"time"
)

func TestHoldFlags(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		until, reason string
		clear         bool
		want          string // the end, "none", "ever" or "error"
	}{
		"for good":              {"", "works", false, "ever"},
		"for a while":           {"2h", "", false, "2026-11-21T14:00:00Z"},
		"until a time":          {"2026-11-22T08:00:00Z", "", false, "2026-11-22T08:00:00Z"},
		"until what is past":    {"2026-11-20T08:00:00Z", "", false, "error"},
		"until a negative time": {"-1h", "", false, "error"},
		"until nonsense":        {"tomorrow", "", false, "error"},
		"cleared":               {"", "", true, "none"},
		"cleared with a reason": {"", "works", true, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			hold, err := holdOf(tc.until, tc.reason, tc.clear, now)
			got := "error"
			switch {
			case err != nil:
			case hold == nil:
				got = "none"
			case hold.Until == nil:
				got = "ever"
			default:
				got = hold.Until.UTC().Format(time.RFC3339)
			}
			if got != tc.want || err == nil && hold != nil && hold.Reason != tc.reason {
				t.Errorf("got %s (%+v, %v), want %s", got, hold, err, tc.want)
			}
		})
	}
}
