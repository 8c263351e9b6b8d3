package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// bound limits how many domains of one kind are used. max 0 is no limit.
type bound struct {
	over     v1alpha1.SpreadOver
	min, max int
	why      string
}

// domain names the failure domain a cluster lies in.
func (b bound) domain(c Cluster) string {
	switch b.over {
	case v1alpha1.SpreadOverRegion:
		return c.Region
	case v1alpha1.SpreadOverCenter:
		return centerOf(c)
	default:
		return c.Name
	}
}

// centerOf keeps two regions' centers of one name apart.
func centerOf(c Cluster) string { return c.Region + "/" + c.Center }

// bounds are the placement's spread constraints, coarsest first, and the one
// that survive implies: with N centers lost, another must remain.
func bounds(p *v1alpha1.Placement) []bound {
	rank := map[v1alpha1.SpreadOver]int{
		v1alpha1.SpreadOverRegion: 0, v1alpha1.SpreadOverCenter: 1, v1alpha1.SpreadOverCluster: 2,
	}
	var out []bound
	for _, s := range p.Spec.Spread {
		out = append(out, bound{over: s.Over, min: int(s.Min), max: int(s.Max), why: "spread over " + string(s.Over)})
	}
	if n := int(p.Spec.Replicas.Survive); n > 0 {
		out = append(out, bound{over: v1alpha1.SpreadOverCenter, min: n + 1, why: fmt.Sprintf("survive %d", n)})
	}
	slices.SortStableFunc(out, func(a, b bound) int { return cmp.Compare(rank[a.over], rank[b.over]) })
	return out
}

// choose picks clusters from the eligible ones so that every bound holds: all
// of them where no maximum forbids it, otherwise those that hold a share now,
// then the heavier ones, then by name. It returns the chosen in order of
// name, or the bound that cannot be kept.
//
// Domains nest (clusters in centers in regions), so the pick is greedy, unmet
// minimum first. If that order of preference paints itself into a corner the
// pick is repeated with the largest domains first.
func choose(bs []bound, eligible []Cluster, prefer func(a, b Cluster) int) ([]Cluster, *bound) {
	chosen, broken := pick(bs, eligible, prefer)
	if broken == nil {
		return chosen, nil
	}
	for _, b := range bs {
		size := map[string]int{}
		for _, c := range eligible {
			size[b.domain(c)]++
		}
		bySize := func(x, y Cluster) int {
			return cmp.Or(cmp.Compare(size[b.domain(y)], size[b.domain(x)]), prefer(x, y))
		}
		if again, still := pick(bs, eligible, bySize); still == nil {
			return again, nil
		}
	}
	return nil, broken
}

func pick(bs []bound, eligible []Cluster, prefer func(a, b Cluster) int) ([]Cluster, *bound) {
	rest := slices.Clone(eligible)
	slices.SortFunc(rest, prefer)
	used := make([]map[string]bool, len(bs))
	for i := range used {
		used[i] = map[string]bool{}
	}
	var chosen []Cluster
	for {
		next := slices.IndexFunc(rest, func(c Cluster) bool { return allowed(bs, used, c) && meetsUnmet(bs, used, c) })
		if next < 0 {
			next = slices.IndexFunc(rest, func(c Cluster) bool { return allowed(bs, used, c) })
		}
		if next < 0 {
			break
		}
		for i, b := range bs {
			used[i][b.domain(rest[next])] = true
		}
		chosen = append(chosen, rest[next])
		rest = slices.Delete(rest, next, next+1)
	}
	for i := range bs {
		if len(used[i]) < bs[i].min {
			return nil, &bs[i]
		}
	}
	slices.SortFunc(chosen, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	return chosen, nil
}

func allowed(bs []bound, used []map[string]bool, c Cluster) bool {
	for i, b := range bs {
		if b.max > 0 && len(used[i]) >= b.max && !used[i][b.domain(c)] {
			return false
		}
	}
	return true
}

// meetsUnmet tells whether the cluster opens a domain for the first bound
// whose minimum is not met yet.
func meetsUnmet(bs []bound, used []map[string]bool, c Cluster) bool {
	for i, b := range bs {
		if len(used[i]) < b.min {
			return !used[i][b.domain(c)]
		}
	}
	return true
}

// explain says which domains there are and what would help.
func (b bound) explain(eligible []Cluster) string {
	seen := map[string]bool{}
	for _, c := range eligible {
		seen[b.domain(c)] = true
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	kind := strings.ToLower(string(b.over)) + "s"
	return fmt.Sprintf("%s needs at least %d %s, and clusters can be used in %d (%s): "+
		"see status.rejected for what keeps the others out, or lower the minimum",
		b.why, b.min, kind, len(names), strings.Join(names, ", "))
}
