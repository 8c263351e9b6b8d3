package failover

import (
	"fmt"
	"slices"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// two makes the application's state two datasets, which move together.
func (w *world) two() *world {
	other := w.db().DeepCopy()
	other.Name = "audit-db"
	w.stamp(other)
	w.s.Datasets = append(w.s.Datasets, other)
	w.app().Spec.Datasets = append(w.app().Spec.Datasets, other.Name)
	for c, o := range w.s.Observed {
		w.s.Observed[Copy{key(other), c.Cluster}] = o
	}
	return w
}

// lawful fails the test when a turn changed a primary other than by promoting it.
func (w *world) lawful(before []*v1alpha1.Dataset, what string) {
	w.t.Helper()
	for i, d := range w.s.Datasets {
		a, b := before[i].Status, d.Status
		if b.Phase == v1alpha1.DatasetSteady && (a.Primary != b.Primary || a.Epoch != b.Epoch) ||
			a.Epoch == b.Epoch && a.Primary != b.Primary || b.Epoch > a.Epoch+1 {
			w.t.Fatalf("%s: dataset %s goes from %s %s@%d to %s %s@%d", what, d.Name, a.Phase, a.Primary, a.Epoch, b.Phase, b.Primary, b.Epoch)
		}
	}
}

// TestDatasetsThatMoveTogetherEndTogether lets one of two datasets meet trouble at
// each step while one or two writes are lost.
func TestDatasetsThatMoveTogetherEndTogether(t *testing.T) {
	for _, verb := range []Verb{"", VerbClose, VerbCatchUp, VerbFence, VerbPromote} {
		for _, outcome := range []Outcome{Refused, Failed} {
			for n := range 20 {
				together(t, verb, outcome, n, n)
			}
		}
	}
	for n := range 20 {
		for also := range 9 {
			together(t, VerbFence, Refused, n, n+also)
		}
	}
}

func together(t *testing.T, verb Verb, outcome Outcome, n, also int) {
	t.Helper()
	what := fmt.Sprintf("audit-db answers %q with %s, without the writes %d and %d", verb, outcome, n, also)
	w := newWorld(t).steady().two()
	w.plan("north-2", 3)
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == verb && c.Dataset.Name == "audit-db" && c.Epoch < 3 {
			return Result{Outcome: outcome, Message: "planted"}, true
		}
		return inOrder(c)
	}
	writes := 0
	w.drop = func(string) bool { writes++; return writes-1 == n || writes-1 == also }
	for range 60 {
		before := slices.Clone(w.s.Datasets)
		w.beats(1)
		w.lawful(before, what)
	}
	run := w.planned()
	where := map[v1alpha1.RunPhase]string{v1alpha1.RunCompleted: "north-2", v1alpha1.RunAborted: "north-1"}[run.Status.Phase]
	for _, d := range w.s.Datasets {
		if d.Status.Primary != where || d.Status.Phase != v1alpha1.DatasetSteady || d.Status.Run != "" {
			t.Fatalf("%s: run %s %s (%s), dataset %s is %s in %s, run %q", what, run.Status.Phase, run.Status.Reason, run.Status.Message,
				d.Name, d.Status.Phase, d.Status.Primary, d.Status.Run)
		}
	}
}
