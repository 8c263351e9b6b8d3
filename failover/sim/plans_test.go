package sim

import "testing"

func TestTheInvariantsHoldForPlans(t *testing.T) {
	n := *seeds / 4
	if testing.Short() {
		n = 60
	}
	var sum Result
	failed := judge(t, n, Options{Plans: true}, func(r Result) {
		sum.PlanRuns, sum.Children, sum.Hooks = sum.PlanRuns+r.PlanRuns, sum.Children+r.Children, sum.Hooks+r.Hooks
		sum.Attested, sum.Drills, sum.Promotions = sum.Attested+r.Attested, sum.Drills+r.Drills, sum.Promotions+r.Promotions
		sum.Switchovers, sum.Failbacks, sum.Returns = sum.Switchovers+r.Switchovers, sum.Failbacks+r.Failbacks, sum.Returns+r.Returns
	})
	t.Logf("%d schedules: %d runs of plans with %d of applications, %d promotions, %d switchovers (%d home), %d returned, %d hooks, %d fences by attestation, %d drills",
		n, sum.PlanRuns, sum.Children, sum.Promotions, sum.Switchovers, sum.Failbacks, sum.Returns, sum.Hooks, sum.Attested, sum.Drills)
	if failed == 0 && (sum.PlanRuns < int(n)/2 || sum.Children < int(n) || sum.Hooks < int(n)/4 || sum.Drills < int(n)/10) {
		t.Error("the schedules do not bite")
	}
}

func TestEveryPlantedBugOfPlansIsFound(t *testing.T) {
	for b := firstOfPlans + 1; b < lastOfPlans; b++ {
		t.Run(b.String(), func(t *testing.T) { findBug(t, Options{Plans: true, Bug: b}) })
	}
}
