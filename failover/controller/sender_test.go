package controller

import (
	"testing"
	"time"
)

// What one dataset lacks a thousand may: what goes on failing is asked more slowly, but
// never more slowly than what is slow by itself.
func TestACommandThatFailsIsAskedMoreSlowly(t *testing.T) {
	for _, tc := range []struct {
		every  time.Duration
		failed int
		want   time.Duration
	}{
		{time.Second, 0, time.Second},
		{time.Second, 1, time.Second}, // the first failure may be of the moment
		{time.Second, 2, 2 * time.Second},
		{time.Second, 3, 4 * time.Second},
		{time.Second, 4, slowest},
		{time.Second, 1000, slowest},
		{slowest, 7, slowest},
		{time.Minute, 7, time.Minute},
	} {
		if got := pace(tc.every, tc.failed); got != tc.want {
			t.Errorf("asked every %v, failed %d times: %v, want %v", tc.every, tc.failed, got, tc.want)
		}
	}
}
