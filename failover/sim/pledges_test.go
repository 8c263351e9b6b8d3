package sim

import (
	"testing"
	"time"
)

func TestTheInvariantsHoldWhileTheHubIsGone(t *testing.T) {
	n := *seeds / 4
	if testing.Short() {
		n = 100
	}
	var outages, promotions, runs int
	failed := judge(t, n, Options{Pledges: true}, func(r Result) {
		outages, promotions, runs = outages+r.Outages, promotions+r.Promotions, runs+r.Runs
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

// Nobody pledges while the hub renews leases, so no promotion waits for a promise.
func TestASwitchoverInAQuietFleetWaitsForNoPledge(t *testing.T) {
	for s := uint64(1); s <= 50; s++ {
		with, without := Run(Options{Seed: s, Quiet: true, Pledges: true}), Run(Options{Seed: s, Quiet: true})
		if with.Switchovers != 1 || len(with.Violations) > 0 || with.Pause > 5*time.Second {
			t.Errorf("seed %d: %d done, pause %v, %v without pledges, %v", s, with.Switchovers, with.Pause, without.Pause, with.Violations)
		}
	}
}
