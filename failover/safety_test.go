package failover

import (
	"encoding/json"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestSafetyRulesAskAPersonBeforeAnAutomaticPlanActs(t *testing.T) {
	for name, tc := range map[string]struct {
		rules v1alpha1.SafetyPolicy
		want  string
	}{
		"within every rule":          {v1alpha1.SafetyPolicy{MaxLostFraction: "0.4", MinActiveCenters: 2, MinVantageCenters: 2}, ""},
		"too much is lost":           {v1alpha1.SafetyPolicy{MaxLostFraction: "0.3"}, "maxLostFraction 0.3 of plan city: 1 of 3 clusters are lost"},
		"nothing may be lost":        {v1alpha1.SafetyPolicy{MaxLostFraction: "0"}, "maxLostFraction 0"},
		"too few centers are left":   {v1alpha1.SafetyPolicy{MinActiveCenters: 3}, "minActiveCenters 3 of plan city: 2 centers"},
		"too few centers can see it": {v1alpha1.SafetyPolicy{MinVantageCenters: 3}, "minVantageCenters 3 of plan city: hub members of 2 other centers"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPlanWorld(t)
			w.add("ledger")
			w.writePlan("city", v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanAutomatic, Safety: tc.rules})
			w.lose("north-1")
			if tc.want == "" {
				w.until("city.north-1.1", v1alpha1.RunCompleted, "north-1")
				return
			}
			w.beat(20, "north-1")
			if a := w.entry("city.north-1.1", "ledger"); !strings.Contains(a.NeedsApproval, tc.want) || w.dbOf("ledger").Status.Epoch != 1 {
				t.Fatalf("%+v", a)
			}
			w.say("city.north-1.1", "", v1alpha1.DecisionApprove, "bob")
			w.until("city.north-1.1", v1alpha1.RunCompleted, "north-1")
		})
	}
}

func TestAFractionIsANumber(t *testing.T) {
	var p v1alpha1.SafetyPolicy
	if err := json.Unmarshal([]byte(`{"maxLostFraction":0.5}`), &p); err != nil || p.MaxLostFraction != "0.5" {
		t.Fatalf("%v, %+v", err, p)
	}
	if text, err := json.Marshal(p); err != nil || string(text) != `{"maxLostFraction":0.5}` {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := json.Marshal(v1alpha1.SafetyPolicy{}); err != nil || string(text) != `{}` {
		t.Errorf("%s, %v", text, err)
	}
}
