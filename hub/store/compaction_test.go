package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHistory(t *testing.T) {
	tests := map[string]struct {
		history history
		// notes are a revision per minute; want is what is due after each.
		notes, want []int64
	}{
		"by age, what is younger stays": {
			history{keep: 3 * time.Minute}, []int64{10, 20, 30, 40, 50, 50, 50}, []int64{0, 0, 0, 10, 20, 30, 40},
		},
		"by number": {history{revisions: 15}, []int64{10, 20, 30}, []int64{0, 5, 15}},
		"by both, whichever is more": {
			history{keep: 2 * time.Minute, revisions: 100}, []int64{10, 20, 30, 400}, []int64{0, 0, 10, 300},
		},
		"a member that stood still drops nothing that is too young": {
			history{keep: 3 * time.Minute}, []int64{10, 20}, []int64{0, 0},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for i, revision := range test.notes {
				got = append(got, test.history.note(time.Unix(int64(60*i), 0), revision))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// compacting is a store whose revision grows by one each second.
type compacting struct {
	compactor
	begun  time.Time
	leads  atomic.Bool
	fails  atomic.Bool
	mu     sync.Mutex
	done   int64
	behind time.Duration
}

func newCompacting(keep time.Duration) *compacting {
	c := &compacting{begun: time.Now(), done: -1} // as mvcc begins
	c.compactor = compactor{
		history: history{keep: keep}, log: slog.New(slog.DiscardHandler), leading: c.leads.Load,
		revision: func() int64 { return int64(time.Since(c.begun) / time.Second) },
		compacted: func() int64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.done
		},
	}
	c.compact = func(_ context.Context, revision int64) error {
		if c.fails.Load() {
			return errors.New("no leader")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done, c.behind = revision, time.Since(c.begun)-time.Duration(revision)*time.Second
		return nil
	}
	return c
}

// TestLeaderBoundsTheHistory runs on a clock of its own.
func TestLeaderBoundsTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompacting(time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.run(ctx) })
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		pass(5 * time.Hour)
		if c.compacted() != -1 {
			t.Errorf("a follower compacted to %d", c.compacted())
		}
		c.leads.Store(true)
		pass(7 * time.Minute)
		if c.compacted() <= 0 || c.behind < time.Hour || c.behind > 70*time.Minute {
			t.Errorf("a new leader compacted to %d, %v ago: want an hour, and at most a tenth more", c.compacted(), c.behind)
		}
		c.fails.Store(true)
		pass(2 * time.Hour)
		before := c.compacted()
		c.fails.Store(false)
		pass(7 * time.Minute)
		if c.compacted() <= before || c.behind > 70*time.Minute {
			t.Errorf("after failures it compacted to %d, %v ago", c.compacted(), c.behind)
		}
		stop()
		wg.Wait()
	})
}

// TestALeaderThatHasJustStartedCompactsNothing: there is nothing yet that is old.
func TestALeaderThatHasJustStartedCompactsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompacting(time.Hour)
		c.leads.Store(true)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.run(ctx) })
		<-time.After(30 * time.Minute)
		synctest.Wait()
		if c.compacted() != -1 {
			t.Errorf("compacted to %d", c.compacted())
		}
		stop()
		wg.Wait()
	})
}

func TestUnboundedHistoryIsLeftAlone(t *testing.T) {
	c := &compactor{history: history{keep: -1}}
	c.run(t.Context()) // returns at once
}
