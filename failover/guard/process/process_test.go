package process_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tripod.dev/tripod/failover/guard/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func supervise(t *testing.T) *process.Supervisor {
	t.Helper()
	s, err := process.NewSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func wait(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for !met() {
		select {
		case <-every.C:
		case <-deadline:
			t.Fatal("not in time: " + what)
		}
	}
}

// PostgreSQL's backends are in sessions of their own, and outlive a postmaster
// that was killed alone.
func TestKillAllReachesSessionsAndOrphans(t *testing.T) {
	s := supervise(t)
	tree := "setsid sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) ; exec sleep 1003"
	p, err := s.Start(context.Background(), process.Spec{Path: "/bin/sh", Args: []string{"-c", tree}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the tree has grown", func() bool { return len(process.Descendants()) >= 5 })
	if left := s.KillAll(); len(left) != 0 {
		t.Errorf("left alive: %v", left)
	}
	<-p.Done()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended with %v", err)
	}
	if left := process.Descendants(); len(left) != 0 {
		t.Errorf("descendants: %v", left)
	}
}

func TestOutputKeepsTheEndOfTheError(t *testing.T) {
	s := supervise(t)
	spec := process.Spec{Path: "/bin/sh", Args: []string{"-c", "cat; echo broken >&2; exit 3"}, Env: []string{"PATH=/usr/bin:/bin"}}
	out, err := s.Output(context.Background(), spec, "text")
	if string(out) != "text" || err == nil || !strings.Contains(err.Error(), "status 3: broken") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestOutputEndsWithItsContext(t *testing.T) {
	s := supervise(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Output(ctx, process.Spec{Path: "/bin/sleep", Args: []string{"1000"}}, ""); err == nil {
		t.Error("a tool outlived its context")
	}
}

func TestNothingStartsAfterTheSupervisorHasEnded(t *testing.T) {
	s, err := process.NewSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx, process.Spec{Path: "/bin/true"}); err == nil {
		t.Error("started without a supervisor")
	}
}
