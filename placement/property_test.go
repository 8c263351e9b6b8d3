package placement_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

func drawSnapshot(t *rapid.T) placement.Snapshot {
	var clusters []placement.Cluster
	for i := range rapid.IntRange(1, 9).Draw(t, "clusters") {
		center := fmt.Sprintf("%s-%d", rapid.SampledFrom([]string{"n", "s", "w"}).Draw(t, "region"), rapid.IntRange(1, 3).Draw(t, "center"))
		clusters = append(clusters, placement.Cluster{
			Name: fmt.Sprintf("c%d", i), Region: center[:1], Center: center,
			Accepted: rapid.IntRange(0, 9).Draw(t, "accepted") > 0,
			Lease:    rapid.SampledFrom([]placement.LeaseState{placement.LeaseHeld, placement.LeaseHeld, placement.LeaseHeld, placement.LeaseUnknown, placement.LeaseOver}).Draw(t, "lease"),
			Free:     &placement.Amount{MilliCPU: rapid.Int64Range(0, 50000).Draw(t, "free")},
		})
	}
	p := policy(divide, survive(rapid.Int32Range(0, 2).Draw(t, "survive")))
	if rapid.Bool().Draw(t, "by capacity") {
		byCapacity(&p.Spec)
	}
	if rapid.Bool().Draw(t, "move") {
		moves(&p.Spec)
	}
	if rapid.Bool().Draw(t, "weighted") {
		p.Spec.Replicas.Weights = map[string]int32{}
		for _, c := range clusters {
			p.Spec.Replicas.Weights[c.Name] = rapid.Int32Range(0, 20).Draw(t, "weight")
		}
	}
	for _, over := range []v1alpha1.SpreadOver{v1alpha1.SpreadOverRegion, v1alpha1.SpreadOverCenter, v1alpha1.SpreadOverCluster} {
		if rapid.IntRange(0, 2).Draw(t, "spread") == 0 {
			lo := rapid.Int32Range(1, 3).Draw(t, "min")
			spread(over, lo, lo+rapid.Int32Range(0, 3).Draw(t, "more"))(&p.Spec)
		}
	}
	s := placement.Snapshot{
		Placement: p, Clusters: clusters,
		Templates: []placement.Template{deployment("api", rapid.Int32Range(0, 30).Draw(t, "replicas"))},
	}
	if rapid.Bool().Draw(t, "has previous") {
		for _, c := range clusters {
			if rapid.Bool().Draw(t, "held") {
				n := rapid.Int32Range(0, 10).Draw(t, "had")
				s.Previous.Shares = append(s.Previous.Shares, v1alpha1.PlacementDecision{Cluster: c.Name, Replicas: &n})
			}
		}
	}
	return s
}

// check says what is wrong with a scheduled decision, or nothing.
func check(s placement.Snapshot, d placement.Decision) string {
	byName := map[string]placement.Cluster{}
	for _, c := range s.Clusters {
		byName[c.Name] = c
	}
	total, centers := int32(0), map[string]int32{}
	for _, share := range d.Shares {
		total += *share.Replicas
		centers[byName[share.Cluster].Center] += *share.Replicas
	}
	declared, n := *s.Templates[0].Replicas, int(s.Placement.Spec.Replicas.Survive)
	if n == 0 && total != declared {
		return fmt.Sprintf("%d replicas run and %d are declared", total, declared)
	}
	var sums []int32
	for _, v := range centers {
		sums = append(sums, v)
	}
	slices.Sort(sums)
	surviving := int32(0)
	for _, v := range sums[:max(0, len(sums)-n)] {
		surviving += v
	}
	if surviving < declared {
		return fmt.Sprintf("%d of %d replicas survive the loss of %d centers: %v", surviving, declared, n, centers)
	}
	for _, constraint := range s.Placement.Spec.Spread {
		chosen, running := map[string]bool{}, map[string]bool{}
		for _, share := range d.Shares {
			c := byName[share.Cluster]
			domain := map[v1alpha1.SpreadOver]string{
				v1alpha1.SpreadOverRegion: c.Region, v1alpha1.SpreadOverCenter: c.Center, v1alpha1.SpreadOverCluster: c.Name,
			}[constraint.Over]
			chosen[domain] = true
			if *share.Replicas > 0 {
				running[domain] = true
			}
		}
		if len(chosen) < int(constraint.Min) || len(chosen) > int(constraint.Max) {
			return fmt.Sprintf("%d %ss chosen, %d to %d asked", len(chosen), constraint.Over, constraint.Min, constraint.Max)
		}
		if len(running) < int(min(constraint.Min, declared)) {
			return fmt.Sprintf("replicas run in %d %ss, at least %d asked", len(running), constraint.Over, constraint.Min)
		}
	}
	return ""
}

func TestEveryDecisionKeepsThePolicy(t *testing.T) {
	scheduled := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		d := placement.Schedule(s)
		if !d.Scheduled() {
			if diff := cmp.Diff(s.Previous.Shares, d.Shares); diff != "" {
				t.Fatalf("%s, and yet it moves:\n%s", d.Reason, diff)
			}
			return
		}
		scheduled++
		if problem := check(s, d); problem != "" {
			t.Fatal(problem)
		}
		if seen := len(d.Shares) + len(d.Rejected); seen != len(s.Clusters) {
			t.Fatalf("%d of %d clusters are explained", seen, len(s.Clusters))
		}
		for _, r := range d.Rejected {
			if len(r.Reasons) == 0 {
				t.Fatalf("%s is rejected without a reason", r.Cluster)
			}
		}
	})
	if scheduled == 0 {
		t.Error("no snapshot could be scheduled: the generator shows nothing")
	}
}

func TestTheCheckFindsAMissingReplica(t *testing.T) {
	s := placement.Snapshot{Placement: policy(divide, survive(1)), Clusters: fleet(), Templates: []placement.Template{deployment("api", 6)}}
	d := placement.Schedule(s)
	*d.Shares[0].Replicas--
	if check(s, d) == "" {
		t.Error("a decision that survives too little passes the check")
	}
}

func TestTheOrderOfTheListsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		want := placement.Schedule(s)
		shuffled := s
		shuffled.Clusters = rapid.Permutation(s.Clusters).Draw(t, "clusters")
		shuffled.Previous.Shares = rapid.Permutation(s.Previous.Shares).Draw(t, "shares")
		if diff := cmp.Diff(want, placement.Schedule(shuffled)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestADecisionIsStableOnceMade(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		d := placement.Schedule(s)
		s.Previous = placement.Previous{Shares: d.Shares, Left: d.Left}
		if diff := cmp.Diff(d.Shares, placement.Schedule(s).Shares); diff != "" {
			t.Fatalf("scheduling again moves replicas:\n%s", diff)
		}
	})
}

func TestALostClusterMovesOnlyItsOwnReplicas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		s.Placement.Spec.Replicas.Survive, s.Placement.Spec.Spread = 0, nil
		moves(&s.Placement.Spec)
		for i := range s.Clusters {
			s.Clusters[i].Lease, s.Clusters[i].Accepted = placement.LeaseHeld, true
			s.Clusters[i].Free.MilliCPU = 1 << 40
		}
		first := placement.Schedule(s)
		if !first.Scheduled() || len(first.Shares) < 2 {
			return
		}
		s.Previous = placement.Previous{Shares: first.Shares}
		lost := rapid.SampledFrom(first.Shares).Draw(t, "lost").Cluster
		for i := range s.Clusters {
			if s.Clusters[i].Name == lost {
				s.Clusters[i].Lease = placement.LeaseOver
			}
		}
		next := placement.Schedule(s)
		if !next.Scheduled() || !slices.Equal(next.Left, []string{lost}) {
			t.Fatalf("%s: %s; left %v", next.Reason, next.Message, next.Left)
		}
		before, after := shares(first), shares(next)
		for name := range before {
			if name != lost && after[name] < before[name] {
				t.Fatalf("%s went from %d to %d when %s was lost", name, before[name], after[name], lost)
			}
		}
	})
}
