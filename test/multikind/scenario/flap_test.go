package scenario

import (
	"flag"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/fault"
)

var flaps = flag.Int("flaps", 3, "how often S7's link goes away and comes back, 20 s each; 30 are ten minutes")

// S7: the link of the primary's center goes away and comes back every 20 s. There is
// one transition at most: what was moved stays, and the flapping center is no target.
func TestS7ALinkFlaps(t *testing.T) {
	f := fleet(t)
	primary, standby, before := f.pair(t)
	b := business(t, f)
	if err := b.AwaitTransfers(t.Context(), 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	known, err := f.runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var effect fault.Effect
	for range *flaps {
		if effect, err = f.isolateFromCenters(t.Context(), primary); err != nil {
			t.Fatal(err)
		}
		if err := f.outlive(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		f.heal(t)
		if err := f.outlive(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.awaitAfter(t.Context(), effect.Monotonic, time.Minute); err != nil {
		t.Errorf("transfers after the link has settled: %v", err)
	}
	after := f.settled(t, primary, standby)
	if after.Status.Epoch > before.Status.Epoch+1 {
		t.Errorf("the epoch was %d and is %d: the role moved more than once", before.Status.Epoch, after.Status.Epoch)
	}
	if runs := f.newRuns(t, known); len(runs) > 1 {
		t.Errorf("there are %d runs, want one at most: %+v", len(runs), runs)
	}
	audit(t, b)
}
