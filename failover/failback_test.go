package failover

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// home orders a failback.
func (w *world) home(requester, to string) *v1alpha1.RecoveryRun {
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "planned", CreationTimestamp: metav1.NewTime(w.s.Now)}}
	r.Spec = v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionFailback,
		To: v1alpha1.Place{Cluster: to}, Requester: requester}
	w.stamp(r)
	w.s.Runs = append(w.s.Runs, r)
	w.sent, w.answer = nil, inOrder
	return r
}

func TestAFailbackReturnsToTheOriginalShape(t *testing.T) {
	w := away(t)
	w.live(600 * time.Second)
	w.home("ann", "")
	w.beats(20)
	run, st := w.planned(), w.db().Status
	if run.Status.Phase != v1alpha1.RunCompleted || st.Primary != "north-1" || st.Epoch != 3 {
		t.Fatalf("run is %s %s: %s, primary %s at epoch %d", run.Status.Phase, run.Status.Reason, run.Status.Message, st.Primary, st.Epoch)
	}
	if got, want := w.verbs(), "CLOSE north-2@2, CATCH_UP north-1@2, FENCE north-2@3, PROMOTE north-1@3, SET_SYNC_SET north-1@3, PROBE north-1@3"; got != want {
		t.Errorf("commands: %s\nwant %s", got, want)
	}
	w.live(5 * time.Second)
	if st := w.db().Status; len(st.SyncSet) != 2 || memberStatus(w.db(), "north-2").HeldSince != nil {
		t.Errorf("the shape is not the original one: %+v", st)
	}
}

func TestAFailbackIsRefusedWhileItsGateIsShut(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		set    func(w *world)
		to     string
	}{
		"in the hold time": {ReasonHeld, func(*world) {}, ""},
		"after another loss": {ReasonHeld, func(w *world) {
			w.live(590 * time.Second)
			w.live(10*time.Second, "north-1")
			w.live(300 * time.Second)
		}, ""},
		"held by a person": {ReasonHeld, func(w *world) { w.live(600 * time.Second); w.s.Fleet.Clusters[0].Hold = "not tonight" }, ""},
		"home is lost":     {ReasonHomeAway, func(w *world) { w.live(600 * time.Second); w.live(10*time.Second, "north-1") }, ""},
		"not in the sync set": {ReasonNotCaughtUp, func(w *world) {
			w.live(600 * time.Second)
			d := w.db().DeepCopy()
			d.Status.SyncSet = []string{"north-2"}
			w.stamp(d)
			replace(w.s.Datasets, d)
		}, ""},
		"to where no home is": {ReasonNoHome, func(w *world) { w.live(600 * time.Second) }, "south-1"},
		"at home already": {ReasonNothingToDo, func(w *world) {
			d := w.db().DeepCopy()
			d.Spec.Members[0], d.Spec.Members[1] = d.Spec.Members[1], d.Spec.Members[0]
			w.stamp(d)
			replace(w.s.Datasets, d)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := away(t)
			tc.set(w)
			w.home("ann", tc.to)
			w.turn()
			run := w.planned()
			if run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != tc.reason {
				t.Fatalf("run is %s %s: %s, want Aborted %s", run.Status.Phase, run.Status.Reason, run.Status.Message, tc.reason)
			}
			if st := w.db().Status; st.Epoch != 2 || st.Phase != v1alpha1.DatasetSteady || st.Primary != "north-2" {
				t.Errorf("something was changed: %+v", st)
			}
		})
	}
}

func TestNobodyGoesHomeUnasked(t *testing.T) {
	w := away(t)
	w.live(2000 * time.Second)
	if len(w.s.Runs) != 1 {
		t.Errorf("%s was started with the policy Manual", w.run().Name)
	}
}

func TestAnAutomaticFailbackWaitsForTheHold(t *testing.T) {
	w := away(t)
	w.policy(func(p *v1alpha1.FailoverPolicy) { p.Failback = v1alpha1.FailbackAutomatic })
	w.answer = inOrder
	w.live(580 * time.Second)
	if len(w.s.Runs) != 1 {
		t.Fatalf("%s was started in the hold time", w.run().Name)
	}
	w.live(40 * time.Second)
	run := w.run()
	if run.Name != "pay.ledger.failback-3" || run.Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "north-1" {
		t.Errorf("run %s is %s %s: %s, primary %s", run.Name, run.Status.Phase, run.Status.Reason, run.Status.Message, w.db().Status.Primary)
	}
	w.live(700 * time.Second)
	if len(w.s.Runs) != 2 {
		t.Errorf("%s was started at home", w.run().Name)
	}
}

// An attempt that failed is not made again at once, and one that a person ended
// never: each closes production for a moment.
func TestAFailedFailbackIsNotRepeatedAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(w *world)
		after int // runs after the next hold time
	}{
		"that took too long":    {func(*world) {}, 3},
		"that a person aborted": {func(w *world) { w.abort("bob"); w.s.Approvals[0].Spec.Run = w.run().Name }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := away(t)
			w.policy(func(p *v1alpha1.FailoverPolicy) { p.Failback = v1alpha1.FailbackAutomatic })
			w.live(570 * time.Second)
			w.answer = unanswered(VerbCatchUp)
			w.live(30 * time.Second)
			if len(w.s.Runs) != 2 {
				t.Fatalf("%d runs, want a failback", len(w.s.Runs))
			}
			tc.end(w)
			w.live(60 * time.Second)
			if run := w.run(); run.Status.Phase != v1alpha1.RunAborted || w.db().Status.Primary != "north-2" {
				t.Fatalf("run %s is %s %s: %s", run.Name, run.Status.Phase, run.Status.Reason, run.Status.Message)
			}
			if len(w.s.Runs) != 2 {
				t.Fatalf("%s was started at once after a failed one", w.run().Name)
			}
			w.answer = inOrder
			w.live(620 * time.Second)
			if len(w.s.Runs) != tc.after {
				t.Errorf("%d runs after another hold time, want %d", len(w.s.Runs), tc.after)
			}
		})
	}
}
