package controller

import (
	"testing"
	"time"
)

func TestWritesGiveWayWhereTheyAreLate(t *testing.T) {
	w := newWidth()
	batch := func(n int, slowest time.Duration) {
		w.took(time.Millisecond)
		w.took(slowest)
		w.adapt(n)
	}
	for range 10 {
		batch(widest, 2*time.Second)
	}
	if w.at != narrowest {
		t.Errorf("after ten late batches %d writes are on their way at once, want %d", w.at, narrowest)
	}
	batch(narrowest, time.Millisecond)
	if w.at != narrowest+widenBy {
		t.Errorf("after a batch in time %d, want %d: the one before counts no longer", w.at, narrowest+widenBy)
	}
	batch(3, time.Millisecond)
	batch(widest, (quickWrite+lateWrite)/2)
	if w.at != narrowest+widenBy {
		t.Errorf("%d, want %d: few writes say nothing, and neither do some that were neither quick nor late", w.at, narrowest+widenBy)
	}
	for range 100 {
		batch(widest, time.Millisecond)
	}
	if w.at != widest {
		t.Errorf("after a hundred quick batches %d, want %d", w.at, widest)
	}
}

func TestALongTurnIsFollowedByARest(t *testing.T) {
	tests := map[string]struct {
		took          time.Duration
		rested, whole time.Duration // after its beginning
		brief         bool
	}{
		"a small fleet":               {took: time.Millisecond, rested: 4 * time.Millisecond, whole: 16 * time.Millisecond},
		"a large one":                 {took: 40 * time.Millisecond, rested: 160 * time.Millisecond, whole: 640 * time.Millisecond},
		"a machine that stands still": {took: 10 * time.Second, rested: turnLate, whole: careLate},
		"a brief turn":                {took: 10 * time.Millisecond, rested: 40 * time.Millisecond, brief: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &Controller{started: time.Now().Add(-time.Hour)}
			began := c.uptime() - tt.took
			c.pace(tt.brief, tt.took)
			if off := c.rested - began - tt.rested; off < 0 || off > time.Second {
				t.Errorf("the next turn is %v after this one, want %v", c.rested-began, tt.rested)
			}
			if off := c.careful - began - tt.whole; !tt.brief && (off < 0 || off > time.Second) || tt.brief && c.careful != 0 {
				t.Errorf("the next whole turn is %v after this one, want %v", c.careful-began, tt.whole)
			}
		})
	}
}
