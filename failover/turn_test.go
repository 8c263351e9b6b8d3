package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestADatasetFormsAndIsProtected(t *testing.T) {
	w := newWorld(t).steady()
	st := w.db().Status
	if st.Primary != "north-1" || st.Epoch != 1 || st.Phase != v1alpha1.DatasetSteady {
		t.Fatalf("formed as %+v", st)
	}
	w.turns(2)
	if diff := cmp.Diff([]string{"10.210.0.11"}, w.name().Status.Answers); diff != "" {
		t.Errorf("answers: %s", diff)
	}
	for _, c := range w.app().Status.Conditions {
		if c.Status != "True" {
			t.Errorf("condition %s is %s: %s", c.Type, c.Status, c.Message)
		}
	}
	if e := w.turn(); len(e.Commands)+len(e.Datasets)+len(e.Applications)+len(e.Services)+len(e.Runs) != 0 {
		t.Errorf("a steady fleet still has effects: %+v", e)
	}
}

func TestTheLossOfOneCenterIsAutomatic(t *testing.T) {
	w := newWorld(t).steady()
	w.lose("north-1")
	w.turns(4)
	run := w.run()
	if run.Status.Phase != v1alpha1.RunCompleted || !run.Status.Automatic {
		t.Fatalf("run is %s (%s: %s), automatic %v", run.Status.Phase, run.Status.Reason, run.Status.Message, run.Status.Automatic)
	}
	st := w.db().Status
	want := v1alpha1.DatasetStatus{Phase: v1alpha1.DatasetSteady, Primary: "north-2", PreviousPrimary: "north-1", Epoch: 2,
		SyncSet: []string{"north-2"}, FenceProof: v1alpha1.FenceElapsed}
	got := v1alpha1.DatasetStatus{Phase: st.Phase, Primary: st.Primary, PreviousPrimary: st.PreviousPrimary, Epoch: st.Epoch, SyncSet: st.SyncSet, FenceProof: st.FenceProof, Run: st.Run}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dataset: %s", diff)
	}
	if diff := cmp.Diff([]string{"10.210.0.12"}, w.name().Status.Answers); diff != "" || w.name().Status.Epoch != 2 {
		t.Errorf("route epoch %d: %s", w.name().Status.Epoch, diff)
	}
	if m := run.Status.Measured; m.RPO != "0" || m.RTOSeconds == "" || m.DetectSeconds != "5.300" {
		t.Errorf("measured %+v", m)
	}
	if w.count(VerbFence) != 0 {
		t.Error("an unreachable cluster was sent a fence")
	}
	if run.Name != "pay.ledger.2" {
		t.Errorf("the run's name %q does not come from application and epoch", run.Name)
	}
}

// In a large fleet most turns leave out what may wait; a loss never waits.
func TestABriefTurnLeavesOutWhatMayWait(t *testing.T) {
	w := newWorld(t)
	w.s.Brief = true
	if e := w.turn(); len(e.Commands)+len(e.Datasets)+len(e.Applications) != 0 {
		t.Fatalf("a dataset that no run moves is changed, or an application assessed: %+v", e)
	}
	w.s.Brief = false
	w.steady()
	w.s.Brief = true
	w.lose("north-1")
	w.turns(4)
	if run, st := w.run(), w.db().Status; run.Status.Phase != v1alpha1.RunCompleted || st.Primary != "north-2" || st.Phase != v1alpha1.DatasetSteady {
		t.Fatalf("run is %s (%s: %s), %s is %s at %s", run.Status.Phase, run.Status.Reason, run.Status.Message, ledger, st.Phase, st.Primary)
	}
	if diff := cmp.Diff([]string{"10.210.0.12"}, w.name().Status.Answers); diff != "" {
		t.Errorf("answers: %s", diff)
	}
	if w.app().Status.LastRun != nil {
		t.Error("the application was assessed")
	}
	w.s.Brief = false
	if w.turn(); w.app().Status.LastRun == nil {
		t.Error("the application was not assessed in the turn after")
	}
}

// The hub's member of the third center is down when the primary falls silent: two
// centers cannot confirm the loss, nothing moves, and the application says why. When
// the member is back, it moves.
func TestASilenceThatNobodyCanConfirmIsSaid(t *testing.T) {
	w := newWorld(t).steady()
	w.s.Fleet.Members[2].Reported = time.Minute
	w.lose("north-1")
	if st := w.db().Status; st.Primary != "north-1" || len(w.s.Runs) != 0 {
		t.Fatalf("the primary is %s with runs %+v, on the word of one center", st.Primary, w.s.Runs)
	}
	ready := meta.FindStatusCondition(w.app().Status.Conditions, v1alpha1.ConditionReady)
	if ready.Reason != "NotActing" || !strings.Contains(ready.Message, "only 1 of 2 centers other than north-1") {
		t.Errorf("the application says %s: %s", ready.Reason, ready.Message)
	}
	w.s.Fleet.Members[2].Reported = 0
	w.turns(8)
	if w.run().Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "north-2" {
		t.Errorf("run is %s (%s), the primary %s", w.run().Status.Phase, w.run().Status.Message, w.db().Status.Primary)
	}
}

func TestTheReturnedPrimaryFollowsAndIsHeld(t *testing.T) {
	w := newWorld(t).steady()
	w.lose("north-1")
	w.turns(4)
	w.s.Observed[Copy{ledger, "north-1"}] = Observed{Role: v1alpha1.RoleNone, State: v1alpha1.StateFenced, Epoch: 1, Guarded: v1alpha1.Guarded}
	st := w.db().Status
	w.s.Observed[Copy{ledger, "north-2"}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: st.Epoch, Guarded: v1alpha1.Guarded}
	w.pass(time.Second)
	w.turn()
	if !slices.ContainsFunc(w.sent, func(c Command) bool { return c.Verb == VerbFollow && c.Cluster == "north-1" && c.Epoch == 2 }) {
		t.Fatalf("the returned side was not told to follow: %+v", w.sent)
	}
	w.steady2(t, "north-1,north-2")
	if memberStatus(w.db(), "north-1").HeldSince == nil {
		t.Error("a member that has just returned is not held")
	}
	w.pass(600 * time.Second)
	w.steady2(t, "north-1,north-2")
	if memberStatus(w.db(), "north-1").HeldSince != nil {
		t.Error("a member that has been stable for longer than the hold time is still held")
	}
}

// steady2 replicates until the sync set is as wanted.
func (w *world) steady2(t *testing.T, want string) {
	t.Helper()
	for range 8 {
		w.replicate()
		w.pass(100 * time.Millisecond)
		w.turn()
	}
	got := append([]string{}, w.db().Status.SyncSet...)
	if len(got) == 2 && got[0] > got[1] {
		got[0], got[1] = got[1], got[0]
	}
	if strings.Join(got, ",") != want {
		t.Fatalf("sync set is %v, want %s", got, want)
	}
}

func TestAHeldTargetNeedsAPerson(t *testing.T) {
	w := newWorld(t).steady()
	mark := w.db().DeepCopy()
	held := memberStatus(mark, "north-2")
	held.HeldSince = &held.ObservedAt
	w.stamp(mark)
	replace(w.s.Datasets, mark)
	s := w.s.Fleet.Sightings["north-2"]
	for range 55 {
		w.pass(100*time.Millisecond, "north-1")
		s.Stable = time.Minute // less than the hold time
		w.s.Fleet.Sightings["north-2"] = s
		w.turn()
	}
	if run := w.run(); run.Status.Phase != v1alpha1.RunAwaitingApproval || !strings.Contains(run.Status.Message, "held") {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
}

func TestLossesInSeveralCentersOpenTheBreaker(t *testing.T) {
	w := newWorld(t).steady()
	for range 30 {
		w.pass(100*time.Millisecond, "south-1")
		w.turn()
	}
	w.lose("south-1", "north-1")
	if len(w.s.Runs) != 0 || w.det.Breaker == "" {
		t.Fatalf("breaker %q, runs %d", w.det.Breaker, len(w.s.Runs))
	}
	if w.db().Status.Epoch != 1 {
		t.Fatal("the epoch moved")
	}
}

// A leader that has just begun, and a cluster of another center that was lost
// with the primary and is heard again before it has watched for long enough.
func TestANewLeaderKnowsOfLossesThatHealBeforeItMayAct(t *testing.T) {
	for name, outage := range map[string]bool{"of a hub that was well": false, "after an outage, of a cluster that was heard since": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			for range 60 {
				w.pass(100*time.Millisecond, "north-1", "south-1")
			}
			w.det = Detection{} // what the leader before it knew is gone
			w.s.Fleet.Watching, w.s.Fleet.AfterOutage = time.Second, outage
			if outage {
				w.s.Fleet.Watching = 10 * time.Second
			}
			w.turn()
			w.heard("south-1")
			w.s.Fleet.Watching = time.Hour
			w.turns(5)
			if len(w.s.Runs) != 0 || w.det.Breaker == "" {
				t.Fatalf("breaker %q, runs %d", w.det.Breaker, len(w.s.Runs))
			}
		})
	}
}

// What the leader before has seen healed is in every member's book.
func TestANewLeaderKnowsOfLossesThatHealedBeforeItsTerm(t *testing.T) {
	for name, tc := range map[string]struct {
		ago  time.Duration
		open bool
	}{"within the window": {40 * time.Second, true}, "long ago": {2 * time.Minute, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			for range 60 {
				w.pass(100*time.Millisecond, "north-1")
				s := w.s.Fleet.Sightings["south-1"]
				s.Lapsed = tc.ago
				w.s.Fleet.Sightings["south-1"] = s
				w.turn()
			}
			if open := w.det.Breaker != ""; open != tc.open || len(w.s.Runs) > 0 == tc.open {
				t.Fatalf("breaker %q, runs %d", w.det.Breaker, len(w.s.Runs))
			}
		})
	}
}

func TestALeaderWithAYoungAccountWaitsUntilItKnowsWhoElseIsSilent(t *testing.T) {
	w := newWorld(t).steady()
	w.s.Fleet.Prompt = 7 * time.Second
	w.lose("north-1")
	if len(w.s.Runs) > 0 {
		t.Fatalf("a leader that has known the leases for %v acts", w.s.Fleet.Prompt)
	}
	w.s.Fleet.Prompt = 8 * time.Second
	w.turns(5)
	if len(w.s.Runs) == 0 {
		t.Fatalf("one that has known them for %v does not", w.s.Fleet.Prompt)
	}
}

func TestALossLongAgoDoesNotOpenTheBreaker(t *testing.T) {
	w := newWorld(t).steady()
	w.lose("south-1")
	w.pass(2*time.Minute, "south-1")
	w.turn()
	w.lose("south-1", "north-1")
	if len(w.s.Runs) != 1 {
		t.Fatalf("runs %d, breaker %q, waiting %q", len(w.s.Runs), w.det.Breaker, w.det.Waiting)
	}
}

func TestAnAsynchronousTargetWaitsForAnApprovalThatAcceptsTheLoss(t *testing.T) {
	w := newWorld(t).steady()
	// north-2 has been gone for long, and is not part of this disaster.
	w.lose("north-2")
	w.pass(2*time.Minute, "north-2")
	w.turn()
	w.lose("north-1", "north-2")
	w.turns(3)
	run := w.run()
	if run.Status.Phase != v1alpha1.RunAwaitingApproval || run.Status.Loss == nil || !run.Status.Loss.Possible || run.Status.Loss.Seconds == 0 {
		t.Fatalf("run is %s %+v", run.Status.Phase, run.Status.Loss)
	}
	w.approve("alice", run.Status.Loss.Seconds-1)
	w.pass(time.Second, "north-1", "north-2")
	w.turns(3)
	if got := w.run().Status.Phase; got != v1alpha1.RunAwaitingApproval {
		t.Fatalf("an approval that accepts too little was enough: %s", got)
	}
	w.approve("alice", run.Status.Loss.Seconds)
	for range 10 {
		w.pass(100*time.Millisecond, "north-1", "north-2")
		w.turn()
	}
	if got := w.run().Status; got.Phase != v1alpha1.RunCompleted || got.Automatic || got.Measured.RPO == "0" {
		t.Fatalf("run is %s (%s), rpo %+v", got.Phase, got.Message, got.Measured)
	}
	if w.db().Status.Primary != "south-1" {
		t.Fatalf("primary is %s", w.db().Status.Primary)
	}
}

// The journal says Fencing, and the leader and the quorum were lost before the epoch
// was committed: what was decided upon is looked at again.
func TestADecisionWhoseEpochWasNeverCommittedIsLookedAtAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		later func(w *world)
		want  string
	}{
		"the source is heard again": {func(w *world) { w.pass(time.Second) }, ReasonSourceBack},
		"the target has left the sync set": {func(w *world) {
			w.db().Status.SyncSet = []string{"north-1"}
		}, ReasonNoTarget},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			lost := false
			w.drop = func(kind string) bool {
				lost = lost || kind == "dataset" && len(w.s.Runs) > 0
				return lost && kind == "dataset"
			}
			for len(w.s.Runs) == 0 || w.run().Status.Phase != v1alpha1.RunFencing {
				w.pass(100*time.Millisecond, "north-1")
				w.turn()
			}
			w.drop = func(string) bool { return false }
			tc.later(w)
			first := w.run().Name
			w.turn()
			if run := w.s.run(first); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != tc.want || w.db().Status.Epoch != 1 {
				t.Fatalf("run is %s %s: %s; epoch %d", run.Status.Phase, run.Status.Reason, run.Status.Message, w.db().Status.Epoch)
			}
		})
	}
}

// What is not guarded does not stop with its lease: nothing bounds what it goes on
// acknowledging.
func TestTheLossOfAnUnguardedPrimaryIsUnknown(t *testing.T) {
	w := newWorld(t).steady()
	w.pass(6*time.Second, "north-1")
	if loss := EstimateLoss(&w.s, w.db(), "south-1"); loss.Seconds > 60 {
		t.Errorf("of a guarded one: %+v", loss)
	}
	o := w.s.Observed[Copy{ledger, "north-1"}]
	o.Guarded = v1alpha1.Unguarded
	w.s.Observed[Copy{ledger, "north-1"}] = o
	if loss := EstimateLoss(&w.s, w.db(), "south-1"); loss.Seconds < unknownLoss || !strings.Contains(loss.Message, "may go on writing; dataset") || !strings.Contains(loss.Message, "when last observed") {
		t.Errorf("of one that is not guarded: %+v", loss)
	}
}

func TestAnUnguardedLostPrimaryPausesUntilItAcknowledges(t *testing.T) {
	w := newWorld(t).steady()
	c := Copy{ledger, "north-1"}
	o := w.s.Observed[c]
	o.Guarded = v1alpha1.Unguarded
	w.s.Observed[c] = o
	w.lose("north-1")
	w.turns(3)
	if got := w.run().Status; got.Phase != v1alpha1.RunPaused || got.Reason != ReasonFenceUnproven {
		t.Fatalf("run is %s %s", got.Phase, got.Reason)
	}
	if w.count(VerbPromote) != 1 { // the formation's
		t.Fatal("promoted without a proof")
	}
	w.pass(time.Second)
	w.turns(8)
	if got := w.run().Status; got.Phase != v1alpha1.RunCompleted || w.db().Status.FenceProof != v1alpha1.FenceAcknowledged {
		t.Fatalf("run is %s (%s), proof %q", got.Phase, got.Message, w.db().Status.FenceProof)
	}
}

func TestAFailedPromotionIsTriedAgainAndARefusedOneIsNot(t *testing.T) {
	for name, tc := range map[string]struct {
		outcome Outcome
		want    v1alpha1.RunPhase
		tries   int
	}{
		"a failure is tried again":       {Failed, v1alpha1.RunCompleted, 3},
		"a refusal waits for a person":   {Refused, v1alpha1.RunPaused, 1},
		"an unreachable agent is waited": {Unreachable, v1alpha1.RunCompleted, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			tries := 0
			w.answer = func(c Command) (Result, bool) {
				if c.Verb != VerbPromote {
					return Result{Outcome: Done}, true
				}
				if tries++; tries < 3 {
					return Result{Outcome: tc.outcome, Message: "planted"}, true
				}
				return Result{Outcome: Done}, true
			}
			w.lose("north-1")
			for range 30 {
				w.pass(100*time.Millisecond, "north-1")
				w.turn()
			}
			if got := w.run().Status; got.Phase != tc.want || tries != tc.tries {
				t.Fatalf("run is %s after %d tries (%s), want %s after %d", got.Phase, tries, got.Message, tc.want, tc.tries)
			}
		})
	}
}

// TestEveryLostWriteIsMadeUp loses each parallel write of a turn in turn, as the
// death of a leader does.
func TestEveryLostWriteIsMadeUp(t *testing.T) {
	for n := range 24 {
		w := newWorld(t).steady()
		writes := 0
		w.drop = func(string) bool { writes++; return writes == n+1 || writes == n+2 }
		w.lose("north-1")
		for range 10 {
			w.pass(100*time.Millisecond, "north-1")
			w.turn()
		}
		if got := w.run().Status; got.Phase != v1alpha1.RunCompleted || w.db().Status.Phase != v1alpha1.DatasetSteady || w.name().Status.Answers[0] != "10.210.0.12" {
			t.Fatalf("without writes %d and %d the run is %s (%s), dataset %q, answers %v", n+1, n+2, got.Phase, got.Message, w.db().Status.Phase, w.name().Status.Answers)
		}
		if w.db().Status.Epoch != 2 {
			t.Fatalf("without writes %d and %d the epoch is %d", n+1, n+2, w.db().Status.Epoch)
		}
		// The decision may have been lost with the journal: the run has it all the same.
		if st := w.run().Status; st.Timeline.DetectedAt == nil || st.Measured.DetectSeconds == "" || !st.Automatic {
			t.Fatalf("without writes %d and %d the run does not say when it was decided upon, by whom, and after how long: %+v", n+1, n+2, st)
		}
	}
}

func TestSilenceAfterAnOutageOfTheHubIsNoLoss(t *testing.T) {
	for name, tc := range map[string]struct {
		watching time.Duration
		outage   bool
		want     int
	}{
		"a new leader looks before it judges":                 {time.Second, false, 0},
		"a new leader that has looked judges":                 {3 * time.Second, false, 1},
		"after an outage the agents are given time to dial":   {10 * time.Second, true, 0},
		"and a cluster that has not come by then is lost too": {20 * time.Second, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.s.Fleet.Watching, w.s.Fleet.AfterOutage = tc.watching, tc.outage
			w.lose("north-1")
			if len(w.s.Runs) != tc.want {
				t.Fatalf("%d runs, want %d: %v", len(w.s.Runs), tc.want, w.det.Reasons)
			}
		})
	}
}
