package failover

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// The loss of a center is one event (safety.md section 8). Where a plan that may
// be used automatically selects its applications, one run of the plan makes up
// for it; the others get a run each, dependencies first (heldBy).

// React returns the runs of plans that the losses ask for, and whom they cover.
// A plan that has no order is not used: its applications get their own runs.
func React(s *Snapshot, det Detection, covered map[types.NamespacedName]string) []*v1alpha1.RecoveryRun {
	if !det.Automatic() {
		return nil
	}
	var out []*v1alpha1.RecoveryRun
	for _, plan := range s.Plans {
		if plan.Spec.Use != v1alpha1.PlanAutomatic {
			continue
		}
		for _, center := range lostCenters(det) {
			if run := s.reaction(det, plan, center, covered); run != nil {
				out = append(out, run)
			}
		}
	}
	return out
}

func lostCenters(det Detection) []string {
	centers := map[string]bool{}
	for _, l := range det.Losses {
		if det.Classes[l.Cluster] == Lost {
			centers[l.Center] = true
		}
	}
	return sortedKeys(centers)
}

// reaction is the run of one plan for one center, if an application of the plan
// would be moved by the engine and no run does it yet. From then on the run covers
// all of the plan's that are lost there.
func (s *Snapshot) reaction(det Detection, plan *v1alpha1.RecoveryPlan, center string, covered map[types.NamespacedName]string) *v1alpha1.RecoveryRun {
	book, no := read(plan)
	if no != nil {
		return nil
	}
	run := &v1alpha1.RecoveryRun{Spec: v1alpha1.RecoveryRunSpec{Plan: plan.Name, Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: center}}}
	var apps []*v1alpha1.Application
	wanted := false
	for _, app := range s.chosen(det, run, book.applications) {
		if covered[key(app)] == "" && s.activeRun(app) == nil {
			apps = append(apps, app)
			wanted = wanted || s.wanted(det, app)
		}
	}
	if !wanted {
		return nil
	}
	if _, no := book.order(s.graph(), apps); no != nil {
		return nil
	}
	for n := 1; ; n++ {
		if run.Name = fmt.Sprintf("%s.%s.%d", plan.Name, center, n); s.run(run.Name) == nil {
			break
		}
	}
	run.ObjectMeta = metav1.ObjectMeta{Name: run.Name}
	for _, app := range apps {
		covered[key(app)] = "run " + run.Name + " moves it"
	}
	return run
}

// wanted is true when the engine would move an application that was lost, if its
// dependencies let it.
func (s *Snapshot) wanted(det Detection, app *v1alpha1.Application) bool {
	lost := s.lostDatasets(det, app)
	target, why := Choose(s, det, app, lost)
	if why != "" || s.manual(app, lost[0].Status.Primary, target.Cluster) {
		return false
	}
	_, declined := s.runName(app, lost)
	return declined == "" && s.declined(app, lost) == ""
}
