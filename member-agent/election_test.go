package memberagent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"tripod.dev/tripod/failover/guard"
)

// lockOf plays the Lease.
type lockOf struct {
	resourcelock.Interface
	err    error
	during func()
}

func (l *lockOf) Identity() string { return "agent-0" }

func (l *lockOf) Update(context.Context, resourcelock.LeaderElectionRecord) error {
	if l.during != nil {
		l.during()
	}
	return l.err
}

func TestTenureCountsFromTheAskingOfARenewal(t *testing.T) {
	e := &election{config: Config{RenewDeadline: time.Hour}, became: func(bool) {}, log: slog.Default()}
	e.renewed.Store(never)
	lock := &lockOf{}
	timed := timedLock{lock, &e.renewed}
	own, nobody := resourcelock.LeaderElectionRecord{HolderIdentity: "agent-0"}, resourcelock.LeaderElectionRecord{}
	if e.set(t.Context(), true); e.tenure() {
		t.Error("a tenure without a renewal")
	}
	asked := guard.BootClock()
	if err := timed.Update(t.Context(), own); err != nil || !e.tenure() {
		t.Errorf("no tenure after a renewal: %v", err)
	}
	if noted := guard.Instant(e.renewed.Load()); noted < asked || noted > guard.BootClock() {
		t.Errorf("noted %v, asked at %v", noted, asked)
	}
	before := e.renewed.Load()
	lock.err = errors.New("no answer")
	if err := timed.Update(t.Context(), own); err == nil || e.renewed.Load() != before {
		t.Error("a renewal that was not confirmed lengthens the tenure")
	}
	lock.err = nil
	lock.during = func() {
		if e.tenure() {
			t.Error("the Lease is being given back, and the tenure has not ended before")
		}
	}
	if err := timed.Update(t.Context(), nobody); err != nil || e.tenure() {
		t.Errorf("a tenure after the Lease was given back: %v", err)
	}
	e.config.RenewDeadline, lock.during = 0, nil
	if err := timed.Update(t.Context(), own); err != nil || e.tenure() {
		t.Errorf("a tenure for longer than another replica waits: %v", err)
	}
}

// The elector tells of the beginning on a goroutine of its own, which may come late.
func TestABeginningThatIsToldAfterTheEndIsNone(t *testing.T) {
	var told []bool
	e := &election{became: func(active bool) { told = append(told, active) }, log: slog.Default()}
	leading, end := context.WithCancel(t.Context())
	end()
	e.set(t.Context(), false)
	e.set(leading, true)
	if e.isActive() || len(told) != 0 {
		t.Errorf("active %t, told %v", e.isActive(), told)
	}
}
