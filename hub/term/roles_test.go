package term

import (
	"slices"
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

// A grant offers pledges to a primary only, and only when that is committed: whoever
// fences it later must know.
func TestAGrantOffersPledgesWhenThatIsCommitted(t *testing.T) {
	terms := Terms{
		Places:   []Place{{"north-1", "north", "192.0.2.1:7443"}, {"north-2", "north", "192.0.2.2:7443"}},
		Pledgers: func([]Place, *v1alpha1.Dataset) []string { return []string{"north-2"} },
	}
	for name, tc := range map[string]struct {
		failsafe bool
		terms    Terms
		want     []string
	}{
		"committed":                 {true, terms, []string{"north-2"}},
		"not committed":             {false, terms, nil},
		"by a hub that offers none": {true, Terms{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := dataset(v1alpha1.DatasetSteady, "north-1", "", 3)
			d.Status.Failsafe = tc.failsafe
			table := Roles([]*v1alpha1.Dataset{d}, tc.terms)
			grant := table["north-1"][0]
			if got := grant.GetFailsafe().GetPledgers(); !slices.Equal(got, tc.want) {
				t.Errorf("pledgers %v, want %v", got, tc.want)
			}
			if tc.want != nil && grant.GetPeers()[0].GetAgentAddress() != "192.0.2.2:7443" {
				t.Errorf("the agent of %s is at %q", grant.GetPeers()[0].GetCluster(), grant.GetPeers()[0].GetAgentAddress())
			}
			for i, cluster := range []string{"north-1", "north-2", "south-1"} {
				if want := d.Spec.Members[i].Address; table[cluster][0].GetAddress() != want {
					t.Errorf("%s is told that its own copy is at %q, want %s", cluster, table[cluster][0].GetAddress(), want)
				}
			}
			if table["north-2"][0].GetFailsafe() != nil {
				t.Error("a replica is offered pledges")
			}
		})
	}
}
