package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// stalled is a failover from north-1, which is lost and heard again, to north-2, which
// does not answer PROMOTE and then is lost, too.
func stalled(t *testing.T) *world {
	w := newWorld(t).steady()
	w.s.Fence = w.book
	w.held("south-1", time.Second)
	w.unpromotable("north-2")
	w.lose("north-1")
	w.beats(2)
	w.silence(12*time.Second, "north-2")
	run := w.run()
	if run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonTargetLost || !strings.Contains(run.Status.Message, "--instead-of "+run.Name) {
		t.Fatalf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	w.sent = nil
	return w
}

// unpromotable never answers PROMOTE.
func (w *world) unpromotable(cluster string) {
	answer := w.answer
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbPromote && c.Cluster == cluster {
			return Result{}, false
		}
		return answer(c)
	}
}

// instead orders a run in place of the last one.
func (w *world) instead(to string) (first, next string) {
	first = w.run().Name
	w.order(to)
	w.run().Name = "instead"
	spec := &w.run().Spec
	spec.From, spec.InsteadOf = v1alpha1.Place{Cluster: w.db().Status.Primary}, first
	return first, w.run().Name
}

func TestAnotherCopyTakesOverWhereTheTargetCannot(t *testing.T) {
	for name, tc := range map[string]struct {
		to     string
		change func(w *world)
		least  int64 // seconds that are shown, and at most 3 more
	}{
		// What north-2 acknowledged from its permission to the end of its lease, 13 s at most, and 5 s
		// for how late a renewal may be applied.
		"the old primary, which is back": {"north-1", func(*world) {}, 12},
		"the best, which is that":        {"", func(*world) {}, 12},
		// A copy that follows late lacks everything since it was level, and people get 5 minutes.
		"a remote copy": {"south-1", func(*world) {}, 325},
		"a remote copy of which nobody knows how much it holds": {"south-1", func(w *world) {
			o := w.s.Observed[Copy{ledger, "south-1"}]
			o.Held = nil
			w.s.Observed[Copy{ledger, "south-1"}] = o
		}, unknownLoss},
		"the old primary, for a leader that has just started": {"north-1", func(w *world) { w.s.Fleet.Prompt = 10 * time.Second }, unknownLoss},
	} {
		t.Run(name, func(t *testing.T) {
			w := stalled(t)
			tc.change(w)
			first, next := w.instead(tc.to)
			w.pass(100*time.Millisecond, "north-2")
			w.turns(4)
			run := w.s.run(next)
			if l := run.Status.Loss; run.Status.Phase != v1alpha1.RunAwaitingApproval || l == nil || l.Seconds < tc.least || l.Seconds > tc.least+3 {
				t.Fatalf("run is %s %s: %s, loss %+v", run.Status.Phase, run.Status.Reason, run.Status.Message, l)
			}
			if old := w.s.run(first); old.Status.Reason != ReasonReplaced || len(w.sent) > 0 || w.db().Status.Epoch != 2 {
				t.Fatalf("the first run is %s %s, sent %+v, dataset %+v", old.Status.Phase, old.Status.Reason, w.sent, w.db().Status)
			}
			w.approve("ben", run.Status.Loss.Seconds)
			w.beats(20, "north-2")
			to, st := run.Status.Datasets[0].Target, w.db().Status
			if run := w.s.run(next); run.Status.Phase != v1alpha1.RunCompleted || tc.to != "" && to != tc.to || tc.to == "" && to != "north-1" {
				t.Fatalf("run is %s %s: %s; to %s", run.Status.Phase, run.Status.Reason, run.Status.Message, to)
			}
			if st.Primary != to || st.Epoch != 3 || st.Phase != v1alpha1.DatasetSteady || st.UnsettledAfter != 0 || !slices.Equal(st.SyncSet[:1], []string{to}) {
				t.Errorf("dataset %+v", st)
			}
			if old := w.s.run(first); old.Status.Phase != v1alpha1.RunAborted || old.Status.Reason != ReasonOvertaken {
				t.Errorf("the first run is %s %s", old.Status.Phase, old.Status.Reason)
			}
			if w.run().Status.Measured.RPO == "0" {
				t.Error("the run reports that nothing was lost, which nobody knows")
			}
		})
	}
}

// The target that was named may have begun: it is proven stopped before another one is
// named, and what it may have acknowledged until then is within what was accepted.
func TestTheTargetThatWasNamedIsProvenStopped(t *testing.T) {
	w := stalled(t)
	answer, heard := w.answer, false
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbFence && !heard {
			return Result{Outcome: Failed, Message: "it goes on"}, true
		}
		return answer(c)
	}
	d := w.db().DeepCopy()
	memberStatus(d, "north-2").Guarded = v1alpha1.Unguarded
	w.s.Datasets[0] = d
	w.pass(10 * time.Second) // north-2 is back
	_, next := w.instead("north-1")
	w.turns(3)
	shown := w.s.run(next).Status.Loss.Seconds
	w.approve("ben", shown)
	w.beats(60)
	if run := w.s.run(next); run.Status.Phase != v1alpha1.RunFencing || w.count(VerbPromote) != 0 {
		t.Fatalf("run is %s %s: %s, %d promotions", run.Status.Phase, run.Status.Reason, run.Status.Message, w.count(VerbPromote))
	}
	for range 400 {
		w.pass(time.Second)
		w.turn()
	}
	heard = true
	for range 60 {
		w.pass(time.Second)
		w.turn()
	}
	run := w.s.run(next)
	if run.Status.Reason != ReasonLossGrown || run.Status.Loss.Seconds <= shown || w.count(VerbPromote) != 0 {
		t.Fatalf("%d s were accepted: run is %s %s: %s", shown, run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
}

func TestARunGoesOnWhenNobodyTakesItsPlace(t *testing.T) {
	w := stalled(t)
	first, next := w.instead("north-1")
	w.pass(100*time.Millisecond, "north-2")
	w.turns(3)
	w.answer = func(Command) (Result, bool) { return Result{Outcome: Done, Position: "0/3000000", Timeline: 2}, true }
	w.beats(5)
	if old := w.s.run(first); old.Status.Reason != ReasonReplaced || w.count(VerbPromote) != 0 {
		t.Fatalf("while the other one asks, the first is %s %s", old.Status.Phase, old.Status.Reason)
	}
	w.abort("ann")
	w.s.Approvals[len(w.s.Approvals)-1].Spec.Run = next
	w.beats(12)
	if old, run := w.s.run(first), w.s.run(next); old.Status.Phase != v1alpha1.RunCompleted || run.Status.Phase != v1alpha1.RunAborted || w.db().Status.Primary != "north-2" {
		t.Errorf("the first is %s %s, the other %s %s, primary %s", old.Status.Phase, old.Status.Message, run.Status.Phase, run.Status.Message, w.db().Status.Primary)
	}
}

func TestWhoseRunCannotBeReplaced(t *testing.T) {
	for name, tc := range map[string]struct {
		begin  func(w *world)
		phase  v1alpha1.RunPhase
		reason string
		says   string
	}{
		"one whose old primary may still run": {func(w *world) {
			w.answer = unanswered(VerbFence)
			w.order("north-2")
			w.beats(3)
		}, v1alpha1.RunPreflight, ReasonInsteadOf, "is in Fencing"},
		"a switchover": {func(w *world) {
			w.answer = unanswered(VerbCatchUp)
			w.plan("north-2", 60)
			w.beats(3)
		}, v1alpha1.RunAborted, ReasonNothingToDo, "tripodctl run abort planned"},
		"one that has ended": {func(w *world) {
			w.order("north-2")
			w.beats(20)
		}, v1alpha1.RunAborted, ReasonNothingToDo, "no dataset of pay/ledger waits"},
		"one of a hub that did not note what its proofs rest on": {func(w *world) {
			w.answer = unanswered(VerbPromote)
			w.order("north-2")
			w.beats(12)
			d := w.db().DeepCopy()
			d.Status.UnsettledAfter = 0
			w.s.Datasets[0] = d
		}, v1alpha1.RunAborted, ReasonNothingToDo, "older version"},
		"one of another application": {func(w *world) {
			w.order("north-2")
			w.run().Spec.Application.Name = "other"
		}, v1alpha1.RunAborted, ReasonNothingToDo, "is not of pay/ledger"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			tc.begin(w)
			_, next := w.instead("south-1")
			w.beats(2)
			if run := w.s.run(next); run.Status.Phase != tc.phase || run.Status.Reason != tc.reason || !strings.Contains(run.Status.Message, tc.says) {
				t.Errorf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
			}
			if run := w.s.run(next); len(run.Status.Datasets) > 0 || w.db().Status.Run == next {
				t.Errorf("it moves %+v", run.Status.Datasets)
			}
		})
	}
}

// A run that was deleted in Promoting leaves a dataset that nobody owns.
func TestADatasetWhoseRunWasDeletedIsTakenOver(t *testing.T) {
	w := stalled(t)
	_, next := w.instead("north-1")
	w.s.Runs = slices.DeleteFunc(w.s.Runs, func(r *v1alpha1.RecoveryRun) bool { return r.Name != next })
	w.pass(100*time.Millisecond, "north-2")
	w.turns(3)
	w.approve("ben", w.run().Status.Loss.Seconds)
	w.beats(20, "north-2")
	if st := w.db().Status; w.run().Status.Phase != v1alpha1.RunCompleted || st.Primary != "north-1" || st.Epoch != 3 {
		t.Errorf("run is %s: %s, dataset %+v", w.run().Status.Phase, w.run().Status.Message, st)
	}
}

func TestEveryLostWriteOfARunInsteadOfAnotherIsMadeUp(t *testing.T) {
	for n := range 24 {
		w := stalled(t)
		first, next := w.instead("north-1")
		writes := 0
		w.drop = func(string) bool { writes++; return writes == n+1 || writes == n+2 }
		for range 60 {
			w.beats(1, "north-2")
			if run := w.s.run(next); len(w.s.Approvals) == 0 && run.Status.Phase == v1alpha1.RunAwaitingApproval {
				w.approve("ben", run.Status.Loss.Seconds+5)
			}
		}
		old, run, st := w.s.run(first), w.s.run(next), w.db().Status
		if run.Status.Phase != v1alpha1.RunCompleted || old.Status.Phase != v1alpha1.RunAborted || st.Primary != "north-1" || st.Epoch != 3 || st.Phase != v1alpha1.DatasetSteady {
			t.Fatalf("without writes %d and %d: run %s %s (%s), the first %s, dataset %+v", n+1, n+2, run.Status.Phase, run.Status.Reason, run.Status.Message, old.Status.Phase, st)
		}
	}
}

// A primary that lives on pledges stops with the promotion of its pledger at the latest.
// If that is never promoted, nothing has stopped it.
func TestAPrimaryOnPledgesIsProvenStoppedBeforeAThirdCopyIsTaken(t *testing.T) {
	for name, tc := range map[string]struct {
		silent []string
		proves func(w *world)
		proof  string
	}{
		"by its own word":    {[]string{"north-2"}, func(*world) {}, "Acknowledged"},
		"by two people":      {[]string{"north-1", "north-2"}, func(w *world) { w.attest("ben", "north-1"); w.attest("cat", "north-1") }, "Attested"},
		"by its pledger":     {[]string{"north-1"}, func(*world) {}, "ElapsedTime"},
		"not by its silence": {[]string{"north-1", "north-2"}, func(*world) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.livesOnPledges()
			w.s.Fence = w.book
			w.held("south-1", time.Second)
			w.unpromotable("north-2")
			w.lose("north-1")
			if st := w.db().Status; st.Phase != v1alpha1.DatasetPromoting || st.Lingers != "north-1" || st.Failsafe {
				t.Fatalf("dataset %+v", st)
			}
			w.silence(12*time.Second, "north-1", "north-2")
			_, next := w.instead("south-1")
			w.silence(2*time.Second, tc.silent...)
			w.approve("ben", w.s.run(next).Status.Loss.Seconds)
			w.silence(2*time.Second, tc.silent...)
			tc.proves(w)
			w.silence(15*time.Second, tc.silent...)
			run := w.s.run(next)
			if tc.proof == "" {
				if run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonFenceUnproven || !strings.Contains(run.Status.Message, "north-1") || w.promoted("south-1") {
					t.Fatalf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
				}
				return
			}
			j := journal(&run.Status, stepEarlier, ledger.Name)
			if run.Status.Phase != v1alpha1.RunCompleted || j == nil || !strings.HasPrefix(j.Message, tc.proof) || w.db().Status.Lingers != "" {
				t.Errorf("run is %s %s: %s, step %+v, dataset %+v", run.Status.Phase, run.Status.Reason, run.Status.Message, j, w.db().Status)
			}
		})
	}
}

// promoted is true when a cluster was told to promote its copy.
func (w *world) promoted(cluster string) bool {
	return slices.ContainsFunc(w.sent, func(c Command) bool { return c.Verb == VerbPromote && c.Cluster == cluster })
}
