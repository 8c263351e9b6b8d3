package effector_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// decide commits a state and returns what a directive of that decision carries.
func (f *fleet) decide(change func()) func(*agentv1.Directive) {
	f.t.Helper()
	f.commit(change)
	f.mu.Lock()
	defer f.mu.Unlock()
	revision := f.revision
	return func(d *agentv1.Directive) { d.Revision = revision }
}

// closeDown closes a primary under load and proves that the target has all of it.
func (f *fleet) closeDown(source, target string, l *ledger) {
	f.t.Helper()
	began := time.Now()
	r := f.must(source, agentv1.Verb_VERB_CLOSE, f.decide(func() {}))
	final := r.GetObservation()
	f.t.Logf("closed %s in %v at %s", source, time.Since(began), final.GetPosition())
	select {
	case <-l.done:
	case <-time.After(5 * time.Second):
		f.t.Fatal("a session outlived the close")
	}
	if final.GetState() != "Closed" || final.GetPositionBytes() <= 0 {
		f.t.Fatalf("closed: %v", final)
	}
	f.must(target, agentv1.Verb_VERB_CATCH_UP, func(d *agentv1.Directive) { d.PositionBytes = final.GetPositionBytes() })
	if r := f.direct(target, agentv1.Verb_VERB_CATCH_UP, 100*time.Millisecond, func(d *agentv1.Directive) {
		d.PositionBytes = final.GetPositionBytes() + 1
	}); r.GetOutcome() != failed {
		f.t.Errorf("%s says that it holds what was never written: %v %s", target, r.GetOutcome(), r.GetMessage())
	}
	f.mustHold(target, l.acked)
}

// takeOver fences the source and promotes the target, which waits for the source.
func (f *fleet) takeOver(source, target string) {
	f.t.Helper()
	f.must(source, agentv1.Verb_VERB_FENCE, f.decide(func() { f.primary, f.epoch, f.fencing = target, f.epoch+1, true }))
	stamp := f.decide(func() { f.fencing = false })
	r := f.must(target, agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) {
		stamp(d)
		d.Role.SyncSet = []string{target, source}
	})
	f.t.Logf("promoted %s in %d ms", target, r.GetElapsedMillis())
}

func TestAPlannedSwitchoverLosesNothingWhetherItReturnsOrNot(t *testing.T) {
	f := newFleet(t, "north-1", "north-2", "south-1")
	f.form()
	l := &ledger{}
	f.start(l, "north-1")

	t.Run("a return before the epoch opens the source, which waits for whom it did", func(t *testing.T) {
		f.closeDown("north-1", "north-2", l)
		// Nothing but a later decision starts it, whatever its grant says.
		if r := f.direct("north-1", agentv1.Verb_VERB_PROMOTE, time.Second, func(d *agentv1.Directive) { d.Revision = 1 }); r.GetOutcome() != refused {
			t.Errorf("an earlier decision: %v %s", r.GetOutcome(), r.GetMessage())
		}
		stamp := f.decide(func() {})
		f.must("north-1", agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) { stamp(d); d.Role.SyncSet = []string{"north-1"} })
		f.waitState("north-1", "Running")
		f.waitState("north-2", "Streaming")
		if o := f.observed("north-1"); o.GetEpoch() != 1 || !slices.Equal(o.GetAcknowledges(), []string{"north-2"}) {
			t.Errorf("it runs at epoch %d and waits for %v", o.GetEpoch(), o.GetAcknowledges())
		}
		f.mustHold("north-1", l.acked)
		f.start(l, "north-1")
	})
	t.Run("a return after the promotion loses nothing, because nothing was acknowledged", func(t *testing.T) {
		f.closeDown("north-1", "north-2", l)
		f.takeOver("north-1", "north-2")
		f.writeInVain("north-2")
		f.must("north-2", agentv1.Verb_VERB_FENCE, f.decide(func() { f.primary, f.epoch, f.fencing = "north-1", f.epoch+1, true }))
		stamp := f.decide(func() { f.fencing = false })
		f.must("north-1", agentv1.Verb_VERB_PROMOTE, func(d *agentv1.Directive) { stamp(d); d.Role.SyncSet = []string{"north-1"} })
		f.commit(func() { f.syncSet = []string{"north-1"} })
		f.waitState("north-2", "Streaming") // taken back without a person
		f.waitState("south-1", "Streaming")
		f.mustHold("north-1", l.acked)
		f.grow("north-1", "north-1", "north-2")
	})
	t.Run("done, the target has everything and the source follows", func(t *testing.T) {
		f.start(l, "north-1")
		began := time.Now()
		f.closeDown("north-1", "north-2", l)
		f.takeOver("north-1", "north-2")
		stamp := f.decide(func() { f.syncSet = []string{"north-2"} })
		f.must("north-2", agentv1.Verb_VERB_SET_SYNC_SET, func(d *agentv1.Directive) { stamp(d); d.Role.SyncSet = []string{"north-2"} })
		t.Logf("from the order to open: %v", time.Since(began))
		stop := f.start(l, "north-2")
		f.waitState("north-1", "Streaming")
		f.waitState("south-1", "Streaming")
		f.grow("north-2", "north-2", "north-1")
		close(stop)
		<-l.done
		f.mustHold("north-2", l.acked)
	})
}

// writeInVain shows that a primary that is not open acknowledges nothing.
func (f *fleet) writeInVain(name string) {
	f.t.Helper()
	f.query(name, func(conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		if _, err := conn.Exec(ctx, "INSERT INTO bulk VALUES (-1, 'never acknowledged')"); err == nil {
			f.t.Errorf("%s acknowledged a write before it was opened", name)
		}
		return nil
	})
}
