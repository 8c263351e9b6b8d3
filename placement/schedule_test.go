package placement_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

func cluster(name, center string, edits ...func(*placement.Cluster)) placement.Cluster {
	region := "north"
	if center[0] == 's' {
		region = "south"
	}
	c := placement.Cluster{
		Name: name, Region: region, Center: center, Accepted: true, Lease: placement.LeaseHeld,
		Labels: map[string]string{"center": center}, Free: &placement.Amount{MilliCPU: 4000, Bytes: 8 << 30},
	}
	for _, edit := range edits {
		edit(&c)
	}
	return c
}

func fleet() []placement.Cluster {
	return []placement.Cluster{cluster("n1", "north-1"), cluster("n2", "north-2"), cluster("s1", "south-1")}
}

func edited(index int, edit func(*placement.Cluster)) []placement.Cluster {
	f := fleet()
	edit(&f[index])
	return f
}

func deployment(name string, replicas int32) placement.Template {
	return placement.Template{
		Ref:      v1alpha1.TemplateReference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "pay", Name: name},
		Replicas: &replicas, Requests: placement.Amount{MilliCPU: 500},
	}
}

func policy(edits ...func(*v1alpha1.PlacementSpec)) *v1alpha1.Placement {
	p := &v1alpha1.Placement{}
	p.Namespace, p.Name = "pay", "ledger"
	p.Spec.Resources = []v1alpha1.ResourceSelector{{APIVersion: "apps/v1", Kind: "Deployment", Name: "api"}}
	for _, edit := range edits {
		edit(&p.Spec)
	}
	return p
}

func divide(s *v1alpha1.PlacementSpec) { s.Replicas.Strategy = v1alpha1.StrategyDivide }

func byCapacity(s *v1alpha1.PlacementSpec) {
	divide(s)
	s.Replicas.By = v1alpha1.DivideByFreeCapacity
}

func survive(n int32) func(*v1alpha1.PlacementSpec) {
	return func(s *v1alpha1.PlacementSpec) { s.Replicas.Survive = n }
}

func weights(w map[string]int32) func(*v1alpha1.PlacementSpec) {
	return func(s *v1alpha1.PlacementSpec) { s.Replicas.Weights = w }
}

func spread(over v1alpha1.SpreadOver, minimum, maximum int32) func(*v1alpha1.PlacementSpec) {
	return func(s *v1alpha1.PlacementSpec) {
		s.Spread = append(s.Spread, v1alpha1.SpreadConstraint{Over: over, Min: minimum, Max: maximum})
	}
}

func moves(s *v1alpha1.PlacementSpec) { s.WhenLost = v1alpha1.WhenLostMove }

func previous(shares map[string]int32) placement.Previous {
	var p placement.Previous
	for _, name := range []string{"n1", "n2", "s1"} {
		if n, ok := shares[name]; ok {
			p.Shares = append(p.Shares, v1alpha1.PlacementDecision{Cluster: name, Replicas: &n})
		}
	}
	return p
}

// shares reads a decision as cluster to replicas; -1 is the template's own.
func shares(d placement.Decision) map[string]int32 {
	out := map[string]int32{}
	for _, s := range d.Shares {
		out[s.Cluster] = -1
		if s.Replicas != nil {
			out[s.Cluster] = *s.Replicas
		}
	}
	return out
}

func TestSchedule(t *testing.T) {
	type result struct {
		Shares   map[string]int32
		Reason   placement.Reason
		Rejected map[string][]string
		Left     []string
	}
	lost := func(c *placement.Cluster) { c.Lease = placement.LeaseOver }
	silent := func(c *placement.Cluster) { c.Lease = placement.LeaseUnknown }
	tests := map[string]struct {
		in   placement.Snapshot
		want result
	}{
		"duplicate leaves the template's number in every cluster": {
			placement.Snapshot{Placement: policy(), Clusters: fleet(), Templates: []placement.Template{deployment("api", 3)}},
			result{Shares: map[string]int32{"n1": -1, "n2": -1, "s1": -1}, Reason: placement.ReasonScheduled},
		},
		"divide shares evenly without weights": {
			placement.Snapshot{Placement: policy(divide), Clusters: fleet(), Templates: []placement.Template{deployment("api", 7)}},
			result{Shares: map[string]int32{"n1": 3, "n2": 2, "s1": 2}, Reason: placement.ReasonScheduled},
		},
		"divide keeps to the weights, and weight 0 gets nothing": {
			placement.Snapshot{
				Placement: policy(divide, weights(map[string]int32{"n1": 3, "n2": 1, "s1": 0})),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 8)},
			},
			result{
				Shares: map[string]int32{"n1": 6, "n2": 2}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"s1": {"its weight is 0"}},
			},
		},
		"survive 1 over two centers runs all of them in each": {
			placement.Snapshot{
				Placement: policy(divide, survive(1), func(s *v1alpha1.PlacementSpec) { s.Clusters.Regions = []string{"north"} }),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 6)},
			},
			result{
				Shares: map[string]int32{"n1": 6, "n2": 6}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"s1": {"region south is not selected"}},
			},
		},
		"survive 1 over three centers runs half as many again": {
			placement.Snapshot{Placement: policy(divide, survive(1)), Clusters: fleet(), Templates: []placement.Template{deployment("api", 6)}},
			result{Shares: map[string]int32{"n1": 3, "n2": 3, "s1": 3}, Reason: placement.ReasonScheduled},
		},
		"survive ignores weights that would put too much into one center": {
			placement.Snapshot{
				Placement: policy(divide, survive(1), weights(map[string]int32{"n1": 1000})),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 6)},
			},
			result{Shares: map[string]int32{"n1": 3, "n2": 3, "s1": 3}, Reason: placement.ReasonScheduled},
		},
		"survive 1 in one center cannot be scheduled and leaves what runs": {
			placement.Snapshot{
				Placement: policy(divide, survive(1), func(s *v1alpha1.PlacementSpec) { s.Clusters.Centers = []string{"north-1"} }),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 6)}, Previous: previous(map[string]int32{"n1": 3, "n2": 3}),
			},
			result{
				Shares: map[string]int32{"n1": 3, "n2": 3}, Reason: placement.ReasonSpreadUnsatisfiable,
				Rejected: map[string][]string{"n2": {"center north-2 is not selected"}, "s1": {"center south-1 is not selected"}},
			},
		},
		"spread max keeps the clusters that hold a share": {
			placement.Snapshot{
				Placement: policy(divide, spread(v1alpha1.SpreadOverCenter, 1, 2)), Clusters: fleet(),
				Templates: []placement.Template{deployment("api", 4)}, Previous: previous(map[string]int32{"n2": 2, "s1": 2}),
			},
			result{
				Shares: map[string]int32{"n2": 2, "s1": 2}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"n1": {"spread over Center allows at most 2, and 2 are used"}},
			},
		},
		"spread min reaches another region before another center": {
			placement.Snapshot{
				Placement: policy(divide, spread(v1alpha1.SpreadOverCenter, 2, 2), spread(v1alpha1.SpreadOverRegion, 2, 0)),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 4)},
			},
			result{
				Shares: map[string]int32{"n1": 2, "s1": 2}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"n2": {"spread over Center allows at most 2, and 2 are used"}},
			},
		},
		"spread min gives a light domain a replica": {
			placement.Snapshot{
				Placement: policy(divide, spread(v1alpha1.SpreadOverRegion, 2, 0), weights(map[string]int32{"n1": 100, "n2": 100})),
				Clusters:  fleet(), Templates: []placement.Template{deployment("api", 4)},
			},
			result{Shares: map[string]int32{"n1": 2, "n2": 1, "s1": 1}, Reason: placement.ReasonScheduled},
		},
		"a cluster that was never heard gets nothing, with every reason": {
			placement.Snapshot{
				Placement: policy(divide, func(s *v1alpha1.PlacementSpec) { s.Clusters.Centers = []string{"north-1", "north-2"} }),
				Clusters: edited(2, func(c *placement.Cluster) {
					c.Lease, c.Accepted = placement.LeaseUnknown, false
					c.Taints = []v1alpha1.ClusterTaint{{Key: "repair", Effect: v1alpha1.TaintNoPlacement}}
				}),
				Templates: []placement.Template{deployment("api", 2)},
			},
			result{
				Shares: map[string]int32{"n1": 1, "n2": 1}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"s1": {
					"center south-1 is not selected", "taint repair has effect NoPlacement",
					"it is not accepted: set spec.admission of the Cluster to Accepted", "it holds no lease: its agent is not heard",
				}},
			},
		},
		"a lost cluster keeps its share": {
			placement.Snapshot{
				Placement: policy(divide), Clusters: edited(0, lost),
				Templates: []placement.Template{deployment("api", 6)}, Previous: previous(map[string]int32{"n1": 2, "n2": 2, "s1": 2}),
			},
			result{Shares: map[string]int32{"n1": 2, "n2": 2, "s1": 2}, Reason: placement.ReasonScheduled},
		},
		"a silent cluster keeps its share even with Move": {
			placement.Snapshot{
				Placement: policy(divide, moves), Clusters: edited(0, silent),
				Templates: []placement.Template{deployment("api", 6)}, Previous: previous(map[string]int32{"n1": 2, "n2": 2, "s1": 2}),
			},
			result{Shares: map[string]int32{"n1": 2, "n2": 2, "s1": 2}, Reason: placement.ReasonScheduled},
		},
		"with Move a cluster whose lease is over loses its share and is left alone": {
			placement.Snapshot{
				Placement: policy(divide, moves), Clusters: edited(0, lost),
				Templates: []placement.Template{deployment("api", 6)}, Previous: previous(map[string]int32{"n1": 2, "n2": 2, "s1": 2}),
			},
			result{
				Shares: map[string]int32{"n2": 3, "s1": 3}, Reason: placement.ReasonScheduled, Left: []string{"n1"},
				Rejected: map[string][]string{"n1": {"it is lost: its lease is surely over and whenLost is Move"}},
			},
		},
		"a tainted cluster keeps what it holds unless it is evacuated": {
			placement.Snapshot{
				Placement: policy(divide), Templates: []placement.Template{deployment("api", 4)},
				Clusters: []placement.Cluster{
					cluster("n1", "north-1", func(c *placement.Cluster) {
						c.Taints = []v1alpha1.ClusterTaint{{Key: "old", Effect: v1alpha1.TaintNoPlacement}}
					}),
					cluster("n2", "north-2", func(c *placement.Cluster) {
						c.Taints = []v1alpha1.ClusterTaint{{Key: "fire", Effect: v1alpha1.TaintEvacuate}}
					}),
					cluster("s1", "south-1"),
				},
				Previous: previous(map[string]int32{"n1": 2, "n2": 2}),
			},
			result{
				Shares: map[string]int32{"n1": 2, "s1": 2}, Reason: placement.ReasonScheduled,
				Rejected: map[string][]string{"n2": {"taint fire has effect Evacuate"}},
			},
		},
		"nothing selected": {
			placement.Snapshot{Placement: policy(), Clusters: fleet(), Previous: previous(map[string]int32{"n1": 2})},
			result{Shares: map[string]int32{}, Reason: placement.ReasonNothingSelected},
		},
		"a selector that matches no cluster leaves what runs": {
			placement.Snapshot{
				Placement: policy(func(s *v1alpha1.PlacementSpec) {
					s.Clusters.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"center": "typo"}}
				}),
				Clusters: fleet()[:1], Templates: []placement.Template{deployment("api", 2)}, Previous: previous(map[string]int32{"n1": 2}),
			},
			result{
				Shares: map[string]int32{"n1": 2}, Reason: placement.ReasonNoCluster,
				Rejected: map[string][]string{"n1": {`its labels do not match "center=typo"`}},
			},
		},
		"free capacity divides what is new and moves nothing that runs": {
			placement.Snapshot{
				Placement: policy(byCapacity), Templates: []placement.Template{deployment("api", 8)},
				Clusters: []placement.Cluster{
					cluster("n1", "north-1", func(c *placement.Cluster) { c.Free.MilliCPU = 500 }), cluster("n2", "north-2"),
				},
				Previous: previous(map[string]int32{"n1": 4}),
			},
			result{Shares: map[string]int32{"n1": 4, "n2": 4}, Reason: placement.ReasonScheduled},
		},
		"too little free capacity is said and moves nothing": {
			placement.Snapshot{
				Placement: policy(byCapacity), Templates: []placement.Template{deployment("api", 80)},
				Clusters: fleet(), Previous: previous(map[string]int32{"n1": 4}),
			},
			result{Shares: map[string]int32{"n1": 4}, Reason: placement.ReasonInsufficientCapacity},
		},
		"no replicas declared gives every chosen cluster none": {
			placement.Snapshot{
				Placement: policy(divide, spread(v1alpha1.SpreadOverCenter, 2, 0)), Clusters: fleet()[:2],
				Templates: []placement.Template{deployment("api", 0)},
			},
			result{Shares: map[string]int32{"n1": 0, "n2": 0}, Reason: placement.ReasonScheduled},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := placement.Schedule(test.in)
			got := result{Shares: shares(d), Reason: d.Reason, Left: d.Left}
			for _, r := range d.Rejected {
				if got.Rejected == nil {
					got.Rejected = map[string][]string{}
				}
				got.Rejected[r.Cluster] = r.Reasons
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", d.Message, diff)
			}
		})
	}
}

func TestScheduleSharesEachTemplateByName(t *testing.T) {
	d := placement.Schedule(placement.Snapshot{
		Placement: policy(divide), Clusters: fleet()[:2],
		Templates: []placement.Template{deployment("api", 2), deployment("web", 5), {Ref: v1alpha1.TemplateReference{Kind: "ConfigMap", Name: "c"}}},
	})
	want := []v1alpha1.PlacementDecision{
		{Cluster: "n1", Templates: map[string]int32{"Deployment/api": 1, "Deployment/web": 3}},
		{Cluster: "n2", Templates: map[string]int32{"Deployment/api": 1, "Deployment/web": 2}},
	}
	if diff := cmp.Diff(want, d.Shares); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := placement.ReplicasFor(d.Shares[0], v1alpha1.TemplateReference{Kind: "ConfigMap", Name: "c"}); n != nil {
		t.Errorf("a ConfigMap has %d replicas", *n)
	}
}
