package controller

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// dying is a client whose writes end after the nth, as those of a leader that dies.
func dying(cl client.Client, n int64) (dies chan struct{}, watched client.Client) {
	var writes atomic.Int64
	dies = make(chan struct{})
	count := func() {
		if writes.Add(1) == n {
			close(dies)
		}
	}
	return dies, interceptor.NewClient(cl.(client.WithWatch), interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, cl client.Client, sub string, obj client.Object, o ...client.SubResourceUpdateOption) error {
			if writes.Load() >= n {
				return context.Canceled
			}
			defer count()
			return cl.SubResource(sub).Update(ctx, obj, o...)
		}})
}

// TestASwitchoverSurvivesTheLeaderAtEveryWrite kills the leader just after each of
// its writes in turn (invariant I6), with an abort by a person and without.
func TestASwitchoverSurvivesTheLeaderAtEveryWrite(t *testing.T) {
	for _, abort := range []bool{false, true} {
		for n := int64(1); n <= 16; n++ {
			h := newHub(t)
			stop := h.lead(h.member("hub-south-1", h.Client))
			h.until("formed and protected", h.protected)
			stop()
			h.create(&v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "planned"}, Spec: v1alpha1.RecoveryRunSpec{
				Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionSwitchover,
				From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: "north-2"}, Requester: "ann"}})
			dies, watched := dying(h.Client, n)
			stop = h.lead(h.member("hub-south-1", watched))
			h.until("the first leader died, or was through", func() bool { return isClosed(dies) || h.finished() })
			stop()
			if abort {
				a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: "no"}}
				a.Spec = v1alpha1.ApprovalSpec{Run: "planned", Step: v1alpha1.StepAbort, Decision: v1alpha1.DecisionReject, Approver: "ann"}
				h.create(a)
			}
			stop = h.lead(h.member("hub-north-2", h.Client))
			h.until("the run ended under the second leader", h.finished)
			stop()
			h.ended(t, n, abort)
		}
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (h *hub) finished() bool { return failover.Finished(h.runs()[0].Status.Phase) }

func (h *hub) create(o client.Object) {
	h.t.Helper()
	if err := h.Create(context.Background(), o); err != nil {
		h.t.Fatal(err)
	}
}

// ended judges one switchover whose leader died after write n.
func (h *hub) ended(t *testing.T, n int64, abort bool) {
	t.Helper()
	run, d := h.runs()[0], h.dataset()
	where := "north-2"
	if run.Status.Phase == v1alpha1.RunAborted {
		where = "north-1"
	}
	if d.Status.Phase != v1alpha1.DatasetSteady || d.Status.Primary != where || !abort && where != "north-2" {
		t.Errorf("leader died after write %d (abort %v): run %s %s, dataset %+v", n, abort, run.Status.Phase, run.Status.Message, d.Status)
	}
	for epoch, times := range h.fleet.promoted {
		if times > 1 && epoch != 1 { // epoch 1 may be opened again
			t.Errorf("leader died after write %d: epoch %d was promoted %d times", n, epoch, times)
		}
	}
	chain := h.chain(t, run.Name)
	closed := slices.ContainsFunc(h.fleet.carried, func(d *agentv1.Directive) bool { return d.GetVerb() == agentv1.Verb_VERB_CLOSE })
	proven := slices.ContainsFunc(chain, func(r evidence.Record) bool { return strings.Contains(r.Text, "nothing is missing") })
	if where == "north-2" && n > 12 && (!closed || !proven) {
		t.Errorf("closed %v, the evidence holds the catch-up proof: %v", closed, proven)
	}
}
