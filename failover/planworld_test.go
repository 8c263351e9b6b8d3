package failover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// newPlanWorld has no application yet: see add.
func newPlanWorld(t *testing.T) *world {
	w := newWorld(t)
	w.s.Datasets, w.s.Applications, w.s.Services = nil, nil, nil
	return w
}

// add makes an application of namespace pay with a healthy dataset in north-1 and
// its copies in north-2, in the sync set, and south-1.
func (w *world) add(name string, dependsOn ...string) *v1alpha1.Application {
	d := &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name + "-db"}}
	d.Spec = v1alpha1.DatasetSpec{Driver: "postgresql", Protection: v1alpha1.ZeroLoss, Members: []v1alpha1.DatasetMember{
		{Cluster: "north-1"}, {Cluster: "north-2"}, {Cluster: "south-1", Link: v1alpha1.LinkAsynchronous}}}
	d.Status = v1alpha1.DatasetStatus{Phase: v1alpha1.DatasetSteady, Primary: "north-1", Epoch: 1, SyncSet: []string{"north-1", "north-2"}, SyncTarget: []string{"north-2"},
		Members: []v1alpha1.DatasetMemberStatus{{Cluster: "north-1", Guarded: v1alpha1.Guarded}, {Cluster: "north-2", Guarded: v1alpha1.Guarded}}}
	w.stamp(d)
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name, Labels: map[string]string{"app": name}}}
	app.Spec = v1alpha1.ApplicationSpec{Datasets: []string{d.Name},
		Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: 600}}
	for _, dep := range dependsOn {
		app.Spec.DependsOn = append(app.Spec.DependsOn, v1alpha1.ApplicationReference{Namespace: "pay", Name: dep})
	}
	w.stamp(app)
	w.s.Datasets, w.s.Applications = append(w.s.Datasets, d), append(w.s.Applications, app)
	w.observe(d)
	return app
}

// observe sets what a healthy dataset reports at its committed epoch.
func (w *world) observe(d *v1alpha1.Dataset) {
	var standbys []string
	for _, m := range d.Spec.Members {
		if m.Cluster != d.Status.Primary {
			standbys = append(standbys, m.Cluster)
			lagBytes, lagSeconds := int64(0), int64(0)
			if m.Cluster == "south-1" {
				lagBytes, lagSeconds = 1000, 7
			}
			w.s.Observed[Copy{key(d), m.Cluster}] = Observed{Role: v1alpha1.RoleReplica, State: v1alpha1.StateStreaming, Epoch: d.Status.Epoch,
				LagBytes: &lagBytes, LagSeconds: &lagSeconds, Guarded: v1alpha1.Guarded}
		}
	}
	w.s.Observed[Copy{key(d), d.Status.Primary}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: d.Status.Epoch,
		Guarded: v1alpha1.Guarded, Streaming: standbys, CaughtUp: standbys, Acknowledges: d.Status.SyncTarget, PositionBytes: 1000}
}

// start puts a run of a plan into the store, ordered by ann.
func (w *world) start(name string, spec v1alpha1.RecoveryRunSpec) *v1alpha1.RecoveryRun {
	run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(w.s.Now)}, Spec: spec}
	run.Spec.Requester = "ann"
	w.stamp(run)
	w.s.Runs = append(w.s.Runs, run)
	return run
}

func (w *world) writePlan(name string, spec v1alpha1.RecoveryPlanSpec) {
	w.s.Plans = append(w.s.Plans, &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
}

// say makes an Approval of bob that steers a run.
func (w *world) say(run, step string, decision v1alpha1.Decision, by string) {
	a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("a%d", len(w.s.Approvals)), CreationTimestamp: metav1.NewTime(w.s.Now)}}
	a.Spec = v1alpha1.ApprovalSpec{Run: run, Step: step, Decision: decision, Approver: by, AcceptLoss: &v1alpha1.AcceptedLoss{Seconds: 1000}}
	w.stamp(a)
	w.s.Approvals = append(w.s.Approvals, a)
}

// until runs turns, with time between them, until the run is in phase.
func (w *world) until(run string, phase v1alpha1.RunPhase, silent ...string) *v1alpha1.RecoveryRun {
	w.t.Helper()
	for range 400 {
		if r := w.s.run(run); r != nil && r.Status.Phase == phase {
			return r
		}
		w.beat(1, silent...)
	}
	for _, r := range w.s.Runs {
		w.t.Logf("run %s: %s %s %s", r.Name, r.Status.Phase, r.Status.Reason, r.Status.Message)
	}
	w.t.Fatalf("run %s did not become %s", run, phase)
	return nil
}

// beat runs n turns a tenth of a second apart.
func (w *world) beat(n int, silent ...string) {
	for range n {
		w.turn()
		w.pass(100*time.Millisecond, silent...)
		for _, d := range w.s.Datasets {
			if d.Status.Phase == v1alpha1.DatasetSteady && w.s.Fleet.Sightings[d.Status.Primary].Silent == 0 {
				w.observe(d)
			}
		}
	}
}

// moved are the applications in the order in which their epochs were committed.
func (w *world) moved() string {
	var order []string
	for _, n := range w.notes {
		if n.Kind == NoteDecision && strings.Contains(n.Text, "primary moves from") {
			order = append(order, strings.TrimSuffix(strings.TrimPrefix(n.Subject, "pay/"), "-db"))
		}
	}
	return strings.Join(order, " ")
}

func (w *world) entry(run, app string) v1alpha1.RunApplication {
	w.t.Helper()
	for _, a := range w.s.run(run).Status.Applications {
		if a.Name == app {
			return a
		}
	}
	w.t.Fatalf("run %s has no application %s", run, app)
	return v1alpha1.RunApplication{}
}

func (w *world) dbOf(app string) *v1alpha1.Dataset {
	return w.s.dataset(types.NamespacedName{Namespace: "pay", Name: app + "-db"})
}

// refusing has every command of a verb for one application refused.
func (w *world) refusing(verb Verb, app string) {
	before := w.answer
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == verb && c.Dataset.Name == app+"-db" {
			return Result{Outcome: Refused, Message: "no"}, true
		}
		return before(c)
	}
}

func named(names ...string) v1alpha1.ApplicationSelector {
	s := v1alpha1.ApplicationSelector{}
	for _, n := range names {
		s.Names = append(s.Names, v1alpha1.ApplicationReference{Namespace: "pay", Name: n})
	}
	return s
}

var fromNorth1 = v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}}
