package sim

import (
	"strings"
	"testing"
)

func TestTheInvariantsHoldWhileTheHubIsGone(t *testing.T) {
	n := *seeds / 4
	if testing.Short() {
		n = 100
	}
	var outages, promotions, runs, failed int
	playWith(n, Options{Pledges: true}, func(r Result) bool {
		outages, promotions, runs = outages+r.Outages, promotions+r.Promotions, runs+r.Runs
		if len(r.Violations) > 0 {
			failed++
			if failed <= 5 {
				t.Errorf("seed %d (replay: go test ./failover/sim -run TestReplay -seed %d -pledges -v):\n  %s", r.Seed, r.Seed, strings.Join(r.Violations, "\n  "))
			}
		}
		return failed > 20
	})
	t.Logf("%d schedules: %d healthy primaries without a hub, %d promotions, %d runs", n, outages, promotions, runs)
	if failed == 0 && (outages < int(n)/20 || promotions < int(n)*5/4 || runs < int(n)/3) {
		t.Errorf("the schedules do not bite: %d healthy primaries without a hub, %d promotions, %d runs in %d schedules", outages, promotions, runs, n)
	}
}

func TestEveryPlantedBugOfPledgesIsFound(t *testing.T) {
	for b := firstOfPledges + 1; b < lastOfPledges; b++ {
		t.Run(b.String(), func(t *testing.T) { findBug(t, Options{Pledges: true, Bug: b}) })
	}
}
