package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// live lets time go by in which copies and sync set follow what is committed.
func (w *world) live(d time.Duration, silent ...string) {
	w.t.Helper()
	for began := w.s.Uptime; w.s.Uptime-began < d; {
		w.replicate()
		for _, name := range silent {
			o := w.s.Observed[Copy{ledger, w.db().Status.Primary}]
			o.Streaming = slices.DeleteFunc(slices.Clone(o.Streaming), func(n string) bool { return n == name })
			o.CaughtUp = o.Streaming
			w.s.Observed[Copy{ledger, w.db().Status.Primary}] = o
		}
		w.pass(2*time.Second, silent...)
		for again := true; again; {
			e := w.turn()
			again = len(e.Create)+len(e.Runs)+len(e.Datasets) > 0 // as the controller does
		}
	}
}

// away has moved the role to north-2 by the loss of north-1, which is back.
func away(t *testing.T) *world {
	w := newWorld(t).steady()
	w.lose("north-1")
	w.turns(4)
	if w.db().Status.Primary != "north-2" || w.run().Status.Phase != v1alpha1.RunCompleted {
		t.Fatalf("primary %s, run %+v", w.db().Status.Primary, w.run().Status)
	}
	w.live(5 * time.Second)
	return w
}

func (w *world) policy(change func(*v1alpha1.FailoverPolicy)) {
	app := w.app().DeepCopy()
	change(&app.Spec.Failover)
	w.stamp(app)
	replace(w.s.Applications, app)
}

// S7: a link that flaps every 20 s for 10 minutes moves the role once at most,
// also where the engine may go home by itself.
func TestAFlappingLinkMovesTheRoleOnce(t *testing.T) {
	for name, flaps := range map[string]func(i int) string{
		"of the first primary":         func(int) string { return "north-1" },
		"of both, one by one":          func(i int) string { return []string{"north-1", "north-2"}[i%2] },
		"of the first standby":         func(int) string { return "north-2" },
		"of the first, then the other": func(i int) string { return []string{"north-1", "north-2"}[i/15] },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.answer = inOrder
			w.policy(func(p *v1alpha1.FailoverPolicy) { p.Failback = v1alpha1.FailbackAutomatic })
			for i := range 30 {
				w.live(10*time.Second, flaps(i))
				w.live(10 * time.Second)
			}
			if w.db().Status.Epoch > 2 {
				t.Errorf("the role moved %d times: runs %d", w.db().Status.Epoch-1, len(w.s.Runs))
			}
		})
	}
}

func TestALossInTheHoldTimeBeginsItAgain(t *testing.T) {
	w := away(t)
	first := memberStatus(w.db(), "north-1").HeldSince
	if first == nil {
		t.Fatal("the lost side is not held")
	}
	w.live(500 * time.Second)
	w.live(10*time.Second, "north-1")
	w.live(150 * time.Second)
	again := memberStatus(w.db(), "north-1").HeldSince
	if again == nil || !again.After(first.Time) {
		t.Fatalf("held since %v, and %v after another loss", first, again)
	}
	w.live(500 * time.Second)
	if memberStatus(w.db(), "north-1").HeldSince != nil {
		t.Error("still held after it was stable for the hold time")
	}
}

// A new leader has heard everybody for a short time only, and a cluster that was
// left while it was heard has been stable for long: both clocks count.
func TestAHoldCountsFromTheChangeToo(t *testing.T) {
	w := newWorld(t).steady()
	w.order("north-2")
	w.turns(6)
	if w.db().Status.Primary != "north-2" {
		t.Fatalf("run %+v", w.run().Status)
	}
	w.live(5 * time.Second)
	if memberStatus(w.db(), "north-1").HeldSince == nil {
		t.Fatal("a cluster that a failover has just left is not held, as it was heard all the time")
	}
	w.live(595 * time.Second)
	if memberStatus(w.db(), "north-1").HeldSince != nil {
		t.Error("the hold does not end")
	}
}

// An ordered run asks because its target is held, and the loss of the source is
// still there when the hold has passed.
func TestARunThatAskedForAHoldGoesOnWithoutIt(t *testing.T) {
	w := newWorld(t).steady()
	mark := w.db().DeepCopy()
	memberStatus(mark, "north-2").HeldSince = &memberStatus(mark, "north-2").ObservedAt
	memberStatus(mark, "north-2").HeldSince.Time = w.s.Now
	w.stamp(mark)
	replace(w.s.Datasets, mark)
	w.since["north-2"] = w.s.Uptime
	w.lose("north-1")
	if run := w.run(); run.Status.Phase != v1alpha1.RunAwaitingApproval || !strings.Contains(run.Status.Message, "held") {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
	for range 1300 {
		w.pass(500*time.Millisecond, "north-1")
		w.turn()
	}
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted || !run.Status.Automatic || run.Status.Measured.RPO != "0" {
		t.Fatalf("run is %s: %s %+v", run.Status.Phase, run.Status.Message, run.Status.Measured)
	}
}

func TestAPersonsHoldIsRespected(t *testing.T) {
	w := newWorld(t).steady()
	for i := range w.s.Fleet.Clusters {
		if w.s.Fleet.Clusters[i].Name == "north-2" {
			w.s.Fleet.Clusters[i].Hold = "power works until 12:00"
		}
	}
	w.lose("north-1")
	w.turns(3)
	if run := w.run(); run.Status.Phase != v1alpha1.RunAwaitingApproval || !strings.Contains(run.Status.Message, "power works") {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
	w.approve("ann", 0)
	for range 12 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted {
		t.Fatalf("an approved run is %s: %s", run.Status.Phase, run.Status.Message)
	}
}
