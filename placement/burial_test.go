package placement_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

func TestBurials(t *testing.T) {
	api, web := deployment("api", 1).Ref, deployment("web", 1).Ref
	both := []v1alpha1.TemplateReference{api, web}
	decided := func(shares map[string]int32, left ...string) placement.Decision {
		return placement.Decision{Shares: previous(shares).Shares, Left: left}
	}
	all := map[string]int32{"n1": 1, "n2": 1, "s1": 1}
	tests := map[string]struct {
		in   placement.Transition
		want map[string][]string
	}{
		"the same decision buries nothing": {
			placement.Transition{Placed: both, Templates: both, Previous: previous(all), Next: decided(all), Clusters: fleet()}, nil,
		},
		"a template that went is buried wherever it was, also where it was left": {
			placement.Transition{
				Placed: both, Templates: both[:1], Clusters: fleet(), Next: decided(map[string]int32{"n1": 1}, "s1"),
				Previous: placement.Previous{Shares: previous(map[string]int32{"n1": 1}).Shares, Left: []string{"s1"}},
			},
			map[string][]string{"web": {"n1", "s1"}},
		},
		"all that was placed is buried in a dropped cluster": {
			placement.Transition{Placed: both, Templates: both, Previous: previous(all), Next: decided(map[string]int32{"n1": 1, "n2": 1}), Clusters: fleet()},
			map[string][]string{"api": {"s1"}, "web": {"s1"}},
		},
		"nothing is buried in a cluster that was lost": {
			placement.Transition{Placed: both, Templates: both, Previous: previous(all), Next: decided(map[string]int32{"n1": 1, "n2": 1}, "s1"), Clusters: fleet()}, nil,
		},
		"nothing is ordered of a cluster that left the fleet": {
			placement.Transition{Placed: both, Templates: both, Previous: previous(all), Next: decided(map[string]int32{"n1": 1, "n2": 1}), Clusters: fleet()[:2]}, nil,
		},
		"a new template buries nothing": {
			placement.Transition{Placed: both[:1], Templates: both, Previous: previous(all), Next: decided(all), Clusters: fleet()}, nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got map[string][]string
			for _, b := range test.in.Burials() {
				if got == nil {
					got = map[string][]string{}
				}
				got[b.Object.Name] = b.Clusters
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
