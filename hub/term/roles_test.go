package term

import (
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestAGrantNamesTheSyncSetOfItsOwnEpochOnly(t *testing.T) {
	for phase, want := range map[v1alpha1.DatasetPhase]int{
		v1alpha1.DatasetForming: 0, v1alpha1.DatasetFencing: 0, v1alpha1.DatasetPromoting: 0, v1alpha1.DatasetSteady: 2, v1alpha1.DatasetClosing: 2,
	} {
		for cluster, grants := range Roles([]*v1alpha1.Dataset{dataset(phase, "north-2", "north-1", 4)}, Terms{}) {
			if got := len(grants[0].GetSyncSet()); got != want {
				t.Errorf("phase %q: the grant of %s names %d members, want %d", phase, cluster, got, want)
			}
		}
	}
}
