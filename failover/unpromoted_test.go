package failover

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A promotion that fails is asked again, and a person can read why; one that is refused
// is for people.
func TestARunSaysWhyItsTargetIsNotPromoted(t *testing.T) {
	w := newWorld(t).steady()
	outcome := Failed
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbPromote {
			return Result{Outcome: outcome, Message: "the volume holds no whole copy"}, true
		}
		return Result{Outcome: Done}, true
	}
	w.lose("north-1")
	for range 20 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	run := w.run()
	if run.Status.Phase != v1alpha1.RunPromoting || !strings.Contains(run.Status.Message, "north-2 is not the primary of pay/ledger-db yet") ||
		!strings.Contains(run.Status.Message, "no whole copy") {
		t.Errorf("run is %s: %q", run.Status.Phase, run.Status.Message)
	}
	outcome = Refused
	for range 20 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	run = w.run()
	if run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonRefused || !strings.Contains(run.Status.Message, "no whole copy") || !strings.Contains(run.Status.Message, "tripodctl approve") {
		t.Errorf("run is %s %s: %q", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
}
