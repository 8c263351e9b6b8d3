package effector_test

import (
	"testing"
	"time"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// acknowledgesFor looks at an open session for so long.
func (f *fleet) acknowledgesFor(l *ledger, limit time.Duration) {
	f.t.Helper()
	for began := time.Now(); time.Since(began) < limit; {
		before := l.count()
		wait(f.t, ttl, "another acknowledged transfer", func() bool { return l.count() > before })
		select {
		case <-l.done:
			f.t.Fatalf("the session ended %v after the hub: %v", time.Since(began), l.end)
		default:
		}
	}
}

func (f *fleet) silenceAll(on bool) {
	for name := range f.centers {
		f.silence(name, on)
	}
}

// A real database and its guard outlive the hub for as long as the standby pledges,
// and not longer; whoever takes over waits for the last pledge.
func TestADatabaseOutlivesTheHubOnPledges(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.failsafe = true
	f.form()
	l := &ledger{}
	stop := f.start(l, "north-1")
	f.silenceAll(true)
	f.acknowledgesFor(l, 3*ttl)
	t.Run("a pledge that is missing ends it at its deadline", func(t *testing.T) {
		began := time.Now()
		f.centers["north-2"].tenure.Store(false)
		select {
		case <-l.done:
		case <-time.After(2 * ttl):
			t.Fatal("the database outlived the last pledge")
		}
		if lived := time.Since(began); lived > ttl {
			t.Errorf("it lived %v without a pledge, one is for %v", lived, ttl)
		}
		f.waitState("north-1", "Stopped")
	})
	t.Run("with all pledges it goes on", func(t *testing.T) {
		f.centers["north-2"].tenure.Store(true)
		f.waitState("north-1", "Running")
		l.done = make(chan struct{})
		stop = f.start(l, "north-1")
		f.mustHold("north-1", l.acked)
	})
	t.Run("south-1 takes over when north-2 has acknowledged the epoch", func(t *testing.T) {
		for _, name := range []string{"north-2", "south-1"} {
			f.silence(name, false)
		}
		f.commit(func() { f.primary, f.epoch, f.fencing = "south-1", f.epoch+1, true })
		began := time.Now()
		f.must("north-2", agentv1.Verb_VERB_WITHHOLD, nil)
		select {
		case <-l.done:
		default:
			t.Errorf("north-2 has acknowledged after %v, and a pledge of it keeps the primary", time.Since(began))
		}
		if _, err := f.connect("north-1"); err == nil {
			t.Error("the old primary still accepts connections")
		}
		f.commit(func() { f.fencing = false })
		f.must("south-1", agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) { d.Role.SyncSet = []string{"south-1"} })
	})
	close(stop)
}

// The target of a promotion is the pledger itself.
func TestAPledgerIsNotPromotedBeforeItsLastPledgeIsOver(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.failsafe = true
	f.form()
	l := &ledger{}
	stop := f.start(l, "north-1")
	f.silenceAll(true)
	f.acknowledgesFor(l, ttl)
	f.silence("north-2", false)
	f.commit(func() { f.primary, f.epoch, f.fencing = "north-2", f.epoch+1, true })
	f.commit(func() { f.fencing = false })
	began := time.Now()
	f.must("north-2", agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) { d.Role.SyncSet = []string{"north-2"} })
	select {
	case <-l.done:
	default:
		t.Errorf("promoted after %v while the old primary still acknowledged", time.Since(began))
	}
	close(stop)
	f.mustHold("north-2", l.acked)
	times := lease.LAN()
	times.TTL = ttl
	if took := time.Since(began); took > times.OverAfter()+5*time.Second {
		t.Errorf("the promotion took %v", took)
	}
}
