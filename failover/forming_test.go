package failover

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A dataset that is deleted and made again under its name starts at epoch 1, and
// clusters that have seen a later one refuse that. A person has to read why.
func TestARefusedFormationIsSaid(t *testing.T) {
	w := newWorld(t)
	w.answer = func(Command) (Result, bool) {
		return Result{Outcome: Refused, Message: "epoch 1, seen 2: older than what this copy has seen"}, true
	}
	w.turns(4)
	available := meta.FindStatusCondition(w.db().Status.Conditions, v1alpha1.ConditionAvailable)
	if available == nil || available.Reason != "FormationRefused" {
		t.Fatalf("the condition Available is %+v, wants FormationRefused", available)
	}
	for _, want := range []string{"north-1", "seen 2: older", "give this one another name"} {
		if !strings.Contains(available.Message, want) {
			t.Errorf("the message %q does not say %q", available.Message, want)
		}
	}
	w.answer = func(Command) (Result, bool) { return Result{Outcome: Done}, true }
	w.turns(30)
	if phase := w.db().Status.Phase; phase != v1alpha1.DatasetSteady {
		t.Errorf("the formation does not go on after the refusal was mended: it is %s", phase)
	}
}
