package term

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stage records what runs.
type stage struct {
	mu     sync.Mutex
	events []string
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *stage) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

func (s *stage) runnable(name string, linger time.Duration) Runnable {
	return Runnable{Name: name, Run: func(ctx context.Context, term uint64) error {
		s.note("%s starts in %d", name, term)
		<-ctx.Done()
		elapse(linger)
		s.note("%s ends", name)
		return ctx.Err()
	}}
}

func start(t *testing.T, config RunnerConfig) (leaderships chan Leadership, stop func()) {
	leaderships = make(chan Leadership)
	config.Subscribe = func(context.Context) <-chan Leadership { return leaderships }
	config.Logger = slog.New(slog.DiscardHandler)
	if config.Barrier == nil {
		config.Barrier = func(context.Context) error { return nil }
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = NewRunner(config).Run(ctx)
	}()
	return leaderships, func() { cancel(); <-done }
}

func TestRunnablesLiveForOneTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{}
		leaderships, stop := start(t, RunnerConfig{Runnables: []Runnable{s.runnable("one", 0)}})
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, s.take()); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		leaderships <- Leadership{Term: 1}
		expect("a follower runs nothing")
		leaderships <- Leadership{Term: 2, Leading: true}
		expect("a leader runs all", "one starts in 2")
		leaderships <- Leadership{Term: 2, Leading: true}
		expect("the same term is not started twice")
		leaderships <- Leadership{Term: 4, Leading: true}
		expect("a new term ends the old one first", "one ends", "one starts in 4")
		leaderships <- Leadership{Term: 5}
		expect("a deposed leader runs nothing", "one ends")
		stop()
	})
}

func TestTheNextTermWaitsForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{}
		leaderships, stop := start(t, RunnerConfig{Runnables: []Runnable{s.runnable("slow", time.Minute)}})
		leaderships <- Leadership{Term: 1, Leading: true}
		synctest.Wait()
		leaderships <- Leadership{Term: 2, Leading: true}
		elapse(30 * time.Second)
		if diff := cmp.Diff([]string{"slow starts in 1"}, s.take()); diff != "" {
			t.Error(diff)
		}
		elapse(31 * time.Second)
		if diff := cmp.Diff([]string{"slow ends", "slow starts in 2"}, s.take()); diff != "" {
			t.Error(diff)
		}
		stop()
	})
}

func TestNothingStartsBeforeTheBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{}
		var applied atomic.Bool
		leaderships, stop := start(t, RunnerConfig{
			Runnables: []Runnable{s.runnable("one", 0)},
			Barrier: func(context.Context) error {
				s.note("barrier")
				if !applied.Load() {
					return errors.New("not applied yet")
				}
				return nil
			},
		})
		leaderships <- Leadership{Term: 1, Leading: true}
		synctest.Wait()
		if diff := cmp.Diff([]string{"barrier"}, s.take()); diff != "" {
			t.Error(diff)
		}
		applied.Store(true)
		elapse(time.Second)
		if diff := cmp.Diff([]string{"barrier", "one starts in 1"}, s.take()); diff != "" {
			t.Error(diff)
		}
		stop()
	})
}

func TestAFailedRunnableIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		leaderships, stop := start(t, RunnerConfig{Runnables: []Runnable{{Name: "broken", Run: func(context.Context, uint64) error {
			runs.Add(1)
			return errors.New("broken")
		}}}})
		leaderships <- Leadership{Term: 1, Leading: true}
		elapse(time.Minute)
		if n := runs.Load(); n < 5 || n > 20 {
			t.Errorf("%d runs in a minute", n)
		}
		stop()
	})
}
