package placement

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Selects tells whether a cluster selector picks the cluster. Every field that
// is given must match.
func Selects(sel v1alpha1.ClusterSelector, c Cluster) (bool, error) {
	reasons, err := selectorReasons(sel, c)
	return len(reasons) == 0, err
}

func selectorReasons(sel v1alpha1.ClusterSelector, c Cluster) ([]string, error) {
	var reasons []string
	if len(sel.Regions) > 0 && !slices.Contains(sel.Regions, c.Region) {
		reasons = append(reasons, fmt.Sprintf("region %s is not selected", c.Region))
	}
	if len(sel.Centers) > 0 && !slices.Contains(sel.Centers, c.Center) {
		reasons = append(reasons, fmt.Sprintf("center %s is not selected", c.Center))
	}
	if len(sel.Names) > 0 && !slices.Contains(sel.Names, c.Name) {
		reasons = append(reasons, fmt.Sprintf("cluster %s is not among the selected names", c.Name))
	}
	if sel.LabelSelector != nil {
		s, err := metav1.LabelSelectorAsSelector(sel.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("read the cluster label selector: %w", err)
		}
		if !s.Matches(labels.Set(c.Labels)) {
			reasons = append(reasons, fmt.Sprintf("its labels do not match %q", s.String()))
		}
	}
	return reasons, nil
}

// rejections are all reasons against a cluster. A cluster that holds a share
// keeps it through silence, a NoPlacement taint and a withdrawn acceptance:
// those stop new placements and never remove what runs.
func rejections(p *v1alpha1.Placement, c Cluster, holds bool) ([]string, error) {
	reasons, err := selectorReasons(p.Spec.Clusters, c)
	if err != nil {
		return nil, err
	}
	for _, t := range c.Taints {
		if t.Effect == v1alpha1.TaintEvacuate || !holds {
			reasons = append(reasons, fmt.Sprintf("taint %s has effect %s", t.Key, t.Effect))
		}
	}
	if !holds && !c.Accepted {
		reasons = append(reasons, "it is not accepted: set spec.admission of the Cluster to Accepted")
	}
	switch {
	case !holds && c.Lease != LeaseHeld:
		reasons = append(reasons, "it holds no lease: its agent is not heard")
	case holds && c.Lease == LeaseOver && p.Spec.WhenLost == v1alpha1.WhenLostMove:
		reasons = append(reasons, "it is lost: its lease is surely over and whenLost is Move")
	}
	if !divides(p) {
		return reasons, nil
	}
	if byFreeCapacity(p) {
		if !holds && c.Free == nil {
			reasons = append(reasons, "its free capacity is not known yet")
		}
	} else if weight(p, c.Name) == 0 {
		reasons = append(reasons, "its weight is 0")
	}
	return reasons, nil
}

// lostByMove tells whether loss alone takes the cluster's share away.
func lostByMove(p *v1alpha1.Placement, c Cluster) bool {
	if c.Lease != LeaseOver || p.Spec.WhenLost != v1alpha1.WhenLostMove || evacuated(c) {
		return false
	}
	selected, err := Selects(p.Spec.Clusters, c)
	return err == nil && selected
}

func evacuated(c Cluster) bool {
	return slices.ContainsFunc(c.Taints, func(t v1alpha1.ClusterTaint) bool {
		return t.Effect == v1alpha1.TaintEvacuate
	})
}

func divides(p *v1alpha1.Placement) bool {
	return p.Spec.Replicas.Strategy == v1alpha1.StrategyDivide
}

func byFreeCapacity(p *v1alpha1.Placement) bool {
	return p.Spec.Replicas.By == v1alpha1.DivideByFreeCapacity
}

func weight(p *v1alpha1.Placement, cluster string) int64 {
	if w, ok := p.Spec.Replicas.Weights[cluster]; ok {
		return int64(max(0, w))
	}
	return 1
}

// describeSelectors says in one line what a placement selects.
func describeSelectors(selectors []v1alpha1.ResourceSelector) string {
	var parts []string
	for _, s := range selectors {
		what := s.Name
		if s.LabelSelector != nil {
			what = "with labels " + metav1.FormatLabelSelector(s.LabelSelector)
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", s.APIVersion, s.Kind, what))
	}
	return strings.Join(parts, "; ")
}
