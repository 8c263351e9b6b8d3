package controller

import (
	"context"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// TestAPlansRunSurvivesTheLeaderAtEveryWrite kills the leader just after each of
// its writes in turn, the creation of the applications' runs included (I6).
func TestAPlansRunSurvivesTheLeaderAtEveryWrite(t *testing.T) {
	for n := int64(1); n <= 40; n += 3 {
		h := newHub(t)
		h.second()
		stop := h.lead(h.member("hub-south-1", h.Client))
		h.until("formed and protected", func() bool { return h.protected() && h.active("core") == "north-1" && h.active("ledger") == "north-1" })
		stop()
		h.create(&v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "out"}, Spec: v1alpha1.RecoveryRunSpec{
			Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}, Requester: "ann"}})
		dies, watched := dyingWhole(h.Client, n)
		stop = h.lead(h.member("hub-south-1", watched))
		h.until("the first leader died, or was through", func() bool { return isClosed(dies) || h.ended1("out") })
		stop()
		stop = h.lead(h.member("hub-north-2", h.Client))
		h.until("the plan's run ended under the second leader", func() bool { return h.ended1("out") })
		stop()
		h.judgePlan(t, n)
	}
}

// second adds an application that the ledger depends on; its dataset is played by
// the same copies.
func (h *hub) second() {
	ctx := context.Background()
	h.fleet.also = []string{"core-db"}
	for _, c := range h.fleet.centers[:2] {
		o := clone(h.fleet.copies[c])
		o.Dataset = &agentv1.DatasetKey{Namespace: "pay", Name: "core-db"}
		h.fleet.copies[at(c, "core-db")] = o
	}
	h.create(&v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "core-db"}, Spec: v1alpha1.DatasetSpec{Driver: "postgresql", Protection: v1alpha1.ZeroLoss,
		Members: []v1alpha1.DatasetMember{{Cluster: "north-1"}, {Cluster: "north-2"}}}})
	h.create(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "core"}, Spec: v1alpha1.ApplicationSpec{Datasets: []string{"core-db"},
		Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: 1}}})
	var ledger v1alpha1.Application
	if err := h.Get(ctx, client.ObjectKey{Namespace: "pay", Name: "ledger"}, &ledger); err != nil {
		h.t.Fatal(err)
	}
	ledger.Spec.DependsOn = []v1alpha1.ApplicationReference{{Namespace: "pay", Name: "core"}}
	if err := h.Update(ctx, &ledger); err != nil {
		h.t.Fatal(err)
	}
}

// active is where the dataset of an application has its settled primary, with a
// synchronous standby beside it.
func (h *hub) active(app string) string {
	var d v1alpha1.Dataset
	if err := h.Get(context.Background(), client.ObjectKey{Namespace: "pay", Name: app + "-db"}, &d); err != nil {
		h.t.Fatal(err)
	}
	if d.Status.Phase != v1alpha1.DatasetSteady || len(d.Status.SyncSet) < 2 {
		return ""
	}
	return d.Status.Primary
}

func (h *hub) ended1(name string) bool {
	var r v1alpha1.RecoveryRun
	return h.Get(context.Background(), client.ObjectKey{Name: name}, &r) == nil && failover.Finished(r.Status.Phase)
}

// dyingWhole is dying for a client whose creations count, too.
func dyingWhole(cl client.Client, n int64) (chan struct{}, client.Client) {
	var writes atomic.Int64
	dies := make(chan struct{})
	count := func() {
		if writes.Add(1) == n {
			close(dies)
		}
	}
	return dies, interceptor.NewClient(cl.(client.WithWatch), interceptor.Funcs{
		Create: func(ctx context.Context, cl client.WithWatch, obj client.Object, o ...client.CreateOption) error {
			if writes.Load() >= n {
				return context.Canceled
			}
			defer count()
			return cl.Create(ctx, obj, o...)
		},
		SubResourceUpdate: func(ctx context.Context, cl client.Client, sub string, obj client.Object, o ...client.SubResourceUpdateOption) error {
			if writes.Load() >= n {
				return context.Canceled
			}
			defer count()
			return cl.SubResource(sub).Update(ctx, obj, o...)
		}})
}

func (h *hub) judgePlan(t *testing.T, n int64) {
	t.Helper()
	byName := map[string]v1alpha1.RecoveryRun{}
	for _, r := range h.runs() {
		byName[r.Name] = r
		h.chain(t, r.Name)
	}
	core, ledger := byName["out.1.pay.core"], byName["out.1.pay.ledger"]
	if len(byName) != 3 || core.Status.Phase != v1alpha1.RunCompleted || ledger.Status.Phase != v1alpha1.RunCompleted || byName["out"].Status.Phase != v1alpha1.RunCompleted {
		t.Errorf("leader died after write %d: runs %+v", n, byName)
		return
	}
	if !core.Status.Timeline.FinishedAt.Before(ledger.Status.Timeline.DetectedAt) {
		t.Errorf("leader died after write %d: ledger began before core was recovered", n)
	}
	for _, app := range []string{"core", "ledger"} {
		var d v1alpha1.Dataset
		if err := h.Get(context.Background(), client.ObjectKey{Namespace: "pay", Name: app + "-db"}, &d); err != nil {
			t.Fatal(err)
		}
		if d.Status.Primary != "north-2" || d.Status.Epoch != 2 {
			t.Errorf("leader died after write %d: %s %+v", n, app, d.Status)
		}
	}
}
