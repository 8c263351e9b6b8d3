package failover

import (
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// An application that no name leads to is verified as soon as its promotion is proven:
// there is no route to commit. Whichever of the parallel writes is lost, it ends as if
// none had been. A hook in between still comes first: see hooks_test.go.
func TestWhereNoNameLeadsThereIsNoRouteToWaitFor(t *testing.T) {
	for _, lost := range []string{"", "run", "dataset"} {
		t.Run("lost: "+lost, func(t *testing.T) {
			w := newWorld(t)
			w.app().Spec.Services, w.s.Services = nil, nil
			w.steady()
			phases := map[v1alpha1.RunPhase]bool{}
			dropped := false
			w.drop = func(kind string) bool {
				proven := len(w.s.Runs) > 0 && w.run().Status.Phase == v1alpha1.RunPromoting && len(w.s.Results) > 0 && w.count(VerbPromote) > 0
				if kind == lost && proven && !dropped {
					dropped = true
					return true
				}
				return false
			}
			w.lose("north-1")
			for range 10 {
				w.turn()
				if len(w.s.Runs) > 0 {
					phases[w.run().Status.Phase] = true
				}
			}
			run, d := w.run(), w.db()
			if run.Status.Phase != v1alpha1.RunCompleted || phases[v1alpha1.RunRouting] || dropped != (lost != "") {
				t.Fatalf("run is %s after %v, a write was lost: %v", run.Status.Phase, phases, dropped)
			}
			if d.Status.Phase != v1alpha1.DatasetSteady || d.Status.Primary != "north-2" || d.Status.Run != "" {
				t.Errorf("dataset is %+v", d.Status)
			}
			if j := journal(&run.Status, stepRoute, ""); j == nil || j.State != v1alpha1.StepSucceeded {
				t.Errorf("the journal says of the route %+v", j)
			}
			if m, at := run.Status.Measured, run.Status.Timeline; m.RTOSeconds == "" || m.RPO != "0" || at.RoutedAt == nil || at.PromotedAt == nil {
				t.Errorf("measured %+v, %+v", m, at)
			}
			if w.count(VerbProbe) == 0 {
				t.Error("the new primary was not proven by a write")
			}
		})
	}
}
