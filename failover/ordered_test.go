package failover

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// order is a failover that a person asks for while everything is healthy.
func (w *world) order(to string) {
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "ordered", CreationTimestamp: metav1.NewTime(w.s.Now)}}
	r.Spec = v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: to}, Requester: "ann"}
	w.stamp(r)
	w.s.Runs = append(w.s.Runs, r)
	w.sent = nil // what formed the dataset
}

// beats lets the fleet be heard for n turns, but for the silent ones.
func (w *world) beats(n int, silent ...string) {
	for range n {
		w.pass(100*time.Millisecond, silent...)
		w.turn()
	}
}

func TestAnOrderedFailoverFencesAHealthyPrimaryByItsWord(t *testing.T) {
	w := newWorld(t).steady()
	w.order("north-2")
	w.pass(time.Second, "north-1") // its last heartbeat was a tick ago
	w.turn()
	w.beats(12)
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceAcknowledged {
		t.Fatalf("run is %s (%s), datasets %+v", run.Status.Phase, run.Status.Message, run.Status.Datasets)
	}
	if d := w.db(); d.Status.Primary != "north-2" || d.Status.Epoch != 2 || w.name().Status.Answers[0] != "10.210.0.12" {
		t.Errorf("dataset %+v, name %+v", d.Status, w.name().Status)
	}
	if m := w.run().Status.Measured; m.DetectSeconds != "0.000" || strings.Contains(m.FenceSeconds+m.PromoteSeconds+m.RouteSeconds, "-") {
		t.Errorf("measured %+v", m)
	}
	if w.count(VerbFence) != 1 || w.count(VerbPromote) != 1 {
		t.Errorf("%d fences, %d promotions", w.count(VerbFence), w.count(VerbPromote))
	}
}

// Nothing is promoted while the old primary has not said that it stopped.
func TestAnOrderedFailoverWaitsForTheFence(t *testing.T) {
	w := newWorld(t).steady()
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbFence {
			return Result{Outcome: Unreachable, Message: "no stream"}, true
		}
		return Result{Outcome: Done}, true
	}
	w.order("north-2")
	w.beats(200)
	if w.count(VerbPromote) != 0 || w.db().Status.Phase != v1alpha1.DatasetFencing {
		t.Fatalf("%d promotions, dataset is %s", w.count(VerbPromote), w.db().Status.Phase)
	}
}

// The remote copy may lack what was acknowledged: a person who did not order it
// has to accept that.
func TestAnOrderedFailoverToAnAsynchronousCopyNeedsAnotherPerson(t *testing.T) {
	w := newWorld(t).steady()
	w.order("south-1")
	w.beats(5)
	if w.run().Status.Phase != v1alpha1.RunAwaitingApproval {
		t.Fatalf("run is %s: %s", w.run().Status.Phase, w.run().Status.Message)
	}
	w.approve("ann", 1000)
	w.beats(5)
	if w.run().Status.Phase != v1alpha1.RunAwaitingApproval {
		t.Fatalf("the requester approved: run is %s", w.run().Status.Phase)
	}
	w.approve("bob", 1000)
	w.beats(12)
	if w.run().Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "south-1" {
		t.Fatalf("run is %s: %s; primary %s", w.run().Status.Phase, w.run().Status.Message, w.db().Status.Primary)
	}
}

// A source that is well goes on writing while people think about the loss.
func TestALossThatGrowsWhilePeopleThinkIsShownAnew(t *testing.T) {
	w := newWorld(t).steady()
	w.order("south-1")
	w.beats(5)
	accepted := w.run().Status.Loss.Seconds
	o, lag := w.s.Observed[Copy{ledger, "south-1"}], accepted+30
	o.LagSeconds = &lag
	w.s.Observed[Copy{ledger, "south-1"}] = o
	w.approve("bob", accepted)
	w.beats(5)
	if run := w.run(); run.Status.Phase != v1alpha1.RunAwaitingApproval || run.Status.Loss.Seconds < lag {
		t.Fatalf("run is %s with the loss %+v shown", run.Status.Phase, run.Status.Loss)
	}
	w.approve("bob", w.run().Status.Loss.Seconds)
	w.beats(12)
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted {
		t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
	}
}

func TestWhoOrderedAFailoverMayWithdrawIt(t *testing.T) {
	w := newWorld(t).steady()
	w.order("south-1")
	w.beats(5)
	w.approve("ann", 0)
	w.s.Approvals[len(w.s.Approvals)-1].Spec.Decision = v1alpha1.DecisionReject
	w.beats(5)
	if run := w.run(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != ReasonRejected || w.db().Status.Epoch != 1 {
		t.Fatalf("run is %s %s: %s; epoch %d", run.Status.Phase, run.Status.Reason, run.Status.Message, w.db().Status.Epoch)
	}
}

func TestAnOrderedFailoverToNowhereSaysWhy(t *testing.T) {
	w := newWorld(t).steady()
	w.order("east-1")
	w.beats(3)
	if run := w.run(); run.Status.Reason != ReasonNoTarget || run.Status.Message == "" || w.db().Status.Epoch != 1 {
		t.Fatalf("run is %s %s %q, epoch %d", run.Status.Phase, run.Status.Reason, run.Status.Message, w.db().Status.Epoch)
	}
}
