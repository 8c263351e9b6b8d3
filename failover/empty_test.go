package failover

import (
	"strings"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A copy that was whole, and is in the sync set, and whose volume was lost since
// (a pod with a new volume, a fleet set up anew): its guard refuses the primary
// role, "an empty volume cannot be the primary", and it does so only after the old
// primary was given up for it. So it must be no target while that is known.
func TestAnEmptyVolumeIsNoTarget(t *testing.T) {
	tests := map[string]struct {
		cluster string
		seen    Observed
	}{
		"of a synchronous standby":                        {"north-2", Observed{State: v1alpha1.StateStopped, Copy: v1alpha1.CopyEmpty, Guarded: v1alpha1.Guarded}},
		"of the remote copy":                              {"south-1", Observed{State: v1alpha1.StateStopped, Copy: v1alpha1.CopyEmpty, Guarded: v1alpha1.Guarded}},
		"after a fence, which it answered":                {"south-1", Observed{State: v1alpha1.StateFenced, Copy: v1alpha1.CopyEmpty, Guarded: v1alpha1.Guarded}},
		"a copy whose rewind did not finish is not whole": {"north-2", Observed{State: v1alpha1.StateStopped, Copy: v1alpha1.CopyPartial, Guarded: v1alpha1.Guarded}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.see(tc.cluster, v1alpha1.RoleReplica, v1alpha1.StateStreaming, 1)
			w.turn()
			if _, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, tc.cluster); why != "" {
				t.Fatalf("it is no target before: %s", why)
			}
			w.s.Observed[Copy{ledger, tc.cluster}] = tc.seen
			w.turn()
			// What was seen is committed: a new leader knows it too.
			delete(w.s.Observed, Copy{ledger, tc.cluster})
			if _, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, tc.cluster); !strings.Contains(why, "dataset pay/ledger") {
				t.Errorf("it is a target: %q", why)
			}
			if tc.cluster == "north-2" {
				w.lose("north-1")
				w.turns(4)
				if st := w.db().Status; st.Epoch != 1 || st.Primary != "north-1" {
					t.Errorf("the role was taken for it: epoch %d, primary %s", st.Epoch, st.Primary)
				}
			}
			w.see(tc.cluster, v1alpha1.RoleReplica, v1alpha1.StateStreaming, 1)
			w.turn()
			if _, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, tc.cluster); strings.Contains(why, "volume") {
				t.Errorf("a copy that runs again is none: %s", why)
			}
		})
	}
}
