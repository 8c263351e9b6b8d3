package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func (w *world) rehearse(to string) *v1alpha1.RecoveryRun {
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "planned", CreationTimestamp: metav1.NewTime(w.s.Now)}}
	r.Spec = v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionDrill,
		To: v1alpha1.Place{Cluster: to}, Requester: "ann"}
	w.stamp(r)
	w.s.Runs = append(w.s.Runs, r)
	w.sent = nil
	w.answer = func(c Command) (Result, bool) {
		return Result{Outcome: Done, Message: "promoted; 12 rows", Elapsed: 2 * time.Second}, true
	}
	return r
}

func TestADrillTouchesNothingOfProduction(t *testing.T) {
	w := newWorld(t).steady()
	w.turns(2)
	before, name := w.db().Status, w.name().Status
	w.rehearse("")
	w.beats(8)
	run := w.planned()
	if run.Status.Phase != v1alpha1.RunCompleted {
		t.Fatalf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	if got, want := w.verbs(), "DRILL_START north-2@1, DRILL_STOP north-2@1"; got != want {
		t.Errorf("commands: %s, want %s", got, want)
	}
	if diff := cmp.Diff(before, w.db().Status); diff != "" {
		t.Errorf("the dataset was changed: %s", diff)
	}
	if diff := cmp.Diff(name, w.name().Status); diff != "" {
		t.Errorf("the route was changed: %s", diff)
	}
	last := w.app().Status.LastDrill
	if last == nil || last.Phase != "Completed" || last.Cluster != "north-2" || !strings.Contains(last.Result, "12 rows; in 2s") {
		t.Errorf("last drill: %+v", last)
	}
	if w.app().Status.LastRun != nil || condition(w.app(), v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		t.Errorf("a drill counts as a move: %+v", w.app().Status)
	}
}

// S19: the disaster goes first, and nothing of the drill is left.
func TestADisasterEndsADrill(t *testing.T) {
	w := newWorld(t).steady()
	w.rehearse("")
	w.answer = unanswered(VerbDrillStart)
	w.beats(3)
	if run := w.planned(); run.Status.Phase != v1alpha1.RunDrilling {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
	w.lose("north-1")
	for range 10 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	if st := w.db().Status; st.Primary != "north-2" || st.Phase != v1alpha1.DatasetSteady {
		t.Errorf("the failover is held up by the drill: %+v", st)
	}
	if run := w.planned(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != ReasonGivesWay {
		t.Errorf("the drill is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	if !slices.ContainsFunc(w.sent, func(c Command) bool { return c.Verb == VerbDrillStop && c.Cluster == "north-2" }) {
		t.Error("the drill was not cleaned up")
	}
}

func TestADrillThatFailsIsCleanedUp(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(Command) (Result, bool)
		end    func(w *world)
		reason string
	}{
		"its copy fails": {func(c Command) (Result, bool) {
			if c.Verb == VerbDrillStart {
				return Result{Outcome: Failed, Message: "no space left"}, true
			}
			return inOrder(c)
		}, func(*world) {}, ReasonDrillFailed},
		"a person aborts it": {unanswered(VerbDrillStart), func(w *world) { w.abort("bob") }, ReasonAborted},
		"the application is moved": {unanswered(VerbDrillStart), func(w *world) {
			w.order("north-2")
			w.turn()
		}, ReasonGivesWay},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.rehearse("north-2")
			w.answer = tc.answer
			w.beats(3)
			tc.end(w)
			w.beats(8)
			if run := w.planned(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != tc.reason {
				t.Errorf("the drill is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
			}
			if w.count(VerbDrillStop) == 0 {
				t.Error("it was not cleaned up")
			}
		})
	}
}

// A copy in a cluster that is lost is not waited for, whatever becomes of the command;
// it is removed when the cluster is back, and the drill has not ended before that.
func TestADrillEndsWithTheClusterOfItsCopy(t *testing.T) {
	w := newWorld(t).steady()
	w.rehearse("south-1")
	gone := true
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbDrillStart || c.Verb == VerbDrillStop && gone {
			return Result{}, false
		}
		return inOrder(c)
	}
	w.beats(3)
	if run := w.planned(); run.Status.Phase != v1alpha1.RunDrilling {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
	w.lose("south-1")
	if run := w.planned(); run.Status.Phase != v1alpha1.RunCleaning || run.Status.Reason != ReasonDrillFailed || !strings.Contains(run.Status.Message, "south-1, where the copy of dataset ledger-db is drilled, is Lost") {
		t.Fatalf("the drill is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	gone = false
	w.beats(3)
	if run := w.planned(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != ReasonDrillFailed {
		t.Errorf("the drill is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
}

func TestADrillIsRefusedWhereNoStandbyStreams(t *testing.T) {
	for to, want := range map[string]string{"north-1": "is the primary", "elsewhere": "holds no copy", "north-2": "does not stream"} {
		w := newWorld(t).steady()
		w.see("north-2", v1alpha1.RoleReplica, v1alpha1.StateDetached, 1)
		w.rehearse(to)
		w.turns(2)
		if run := w.planned(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != ReasonNoTarget || !strings.Contains(run.Status.Message, want) {
			t.Errorf("to %s: %s %s: %s, want %q", to, run.Status.Phase, run.Status.Reason, run.Status.Message, want)
		}
	}
}
