package placement

import (
	"cmp"
	"fmt"
	"slices"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Burial is the order to delete one object in some clusters.
type Burial struct {
	Object   v1alpha1.TemplateReference
	Clusters []string
	Reason   string
}

// Transition is a step from one committed decision to the next.
type Transition struct {
	// Placed are the templates that the previous decision covers.
	Placed   []v1alpha1.TemplateReference
	Previous Previous
	// Templates are the ones selected now, and Next the decision for them.
	Templates []v1alpha1.TemplateReference
	Next      Decision
	// Ends is true when the placement is deleted.
	Ends bool
	// Clusters of the fleet. One that has left the fleet is ordered nothing.
	Clusters []Cluster
}

// Burials are what a transition orders deleted: a template that went, wherever
// it was placed; and all that was placed, in a cluster that was dropped. A
// cluster that lost its share because it was lost is not dropped: it is in
// Next.Left, and what it holds is left there (invariant I3).
func (t Transition) Burials() []Burial {
	var before, dropped []string
	for _, c := range t.Clusters {
		heldBefore := slices.Contains(t.Previous.Left, c.Name) || hasShare(t.Previous.Shares, c.Name)
		if !heldBefore {
			continue
		}
		before = append(before, c.Name)
		if !hasShare(t.Next.Shares, c.Name) && !slices.Contains(t.Next.Left, c.Name) {
			dropped = append(dropped, c.Name)
		}
	}
	slices.Sort(before)
	slices.Sort(dropped)
	var out []Burial
	for _, ref := range t.Placed {
		switch {
		case t.Ends:
			out = append(out, Burial{ref, before, "the placement was deleted"})
		case !Contains(t.Templates, ref):
			out = append(out, Burial{ref, before, fmt.Sprintf("%s was deleted or is no longer selected", TemplateKey(ref))})
		default:
			out = append(out, Burial{ref, dropped, "the placement no longer selects these clusters"})
		}
	}
	out = slices.DeleteFunc(out, func(b Burial) bool { return len(b.Clusters) == 0 })
	slices.SortFunc(out, func(a, b Burial) int { return CompareReferences(a.Object, b.Object) })
	return out
}

// CompareReferences orders references by kind, namespace, name and version.
func CompareReferences(a, b v1alpha1.TemplateReference) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.APIVersion, b.APIVersion))
}

func hasShare(shares []v1alpha1.PlacementDecision, cluster string) bool {
	return slices.ContainsFunc(shares, func(s v1alpha1.PlacementDecision) bool { return s.Cluster == cluster })
}
