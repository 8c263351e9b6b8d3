package failover

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// graph is who depends on whom, by Application.spec.dependsOn. A dependency that
// does not exist is not in it.
type graph struct {
	needs map[types.NamespacedName][]types.NamespacedName
	// circle of each application that depends on itself: those of one circle have
	// the same number, which is not 0.
	circle map[types.NamespacedName]int
}

// graph of all applications of the snapshot.
func (s *Snapshot) graph() *graph {
	ix := s.indexed()
	if ix.graph != nil {
		return ix.graph
	}
	g := &graph{needs: make(map[types.NamespacedName][]types.NamespacedName, len(s.Applications)), circle: map[types.NamespacedName]int{}}
	for _, app := range s.Applications {
		for _, ref := range app.Spec.DependsOn {
			if ix.applications[applicationKey(ref)] != nil {
				g.needs[key(app)] = append(g.needs[key(app)], applicationKey(ref))
			}
		}
	}
	t := tarjan{graph: g, order: map[types.NamespacedName]int{}, low: map[types.NamespacedName]int{}, open: map[types.NamespacedName]bool{}}
	for _, app := range s.Applications {
		if t.order[key(app)] == 0 {
			t.visit(key(app))
		}
	}
	ix.graph = g
	return g
}

// tarjan finds the circles of a graph in one pass (R. Tarjan, Depth-first search
// and linear graph algorithms, 1972).
type tarjan struct {
	*graph
	n          int
	order, low map[types.NamespacedName]int
	open       map[types.NamespacedName]bool
	stack      []types.NamespacedName
}

func (t *tarjan) visit(v types.NamespacedName) {
	t.n++
	t.order[v], t.low[v], t.open[v] = t.n, t.n, true
	t.stack = append(t.stack, v)
	for _, w := range t.needs[v] {
		if t.order[w] == 0 {
			t.visit(w)
			t.low[v] = min(t.low[v], t.low[w])
		} else if t.open[w] {
			t.low[v] = min(t.low[v], t.order[w])
		}
	}
	if t.low[v] != t.order[v] {
		return
	}
	i := slices.Index(t.stack, v)
	for _, w := range t.stack[i:] {
		t.open[w] = false
		if len(t.stack)-i > 1 || slices.Contains(t.needs[v], v) {
			t.circle[w] = t.order[v]
		}
	}
	t.stack = t.stack[:i]
}

// cycle names the shortest way from an application of a circle back to itself.
func (g *graph) cycle(from types.NamespacedName) string {
	before := map[types.NamespacedName]types.NamespacedName{}
	for next := []types.NamespacedName{from}; len(next) > 0; next = next[1:] {
		for _, w := range g.needs[next[0]] {
			if w == from {
				path := []string{from.String()}
				for v := next[0]; v != from; v = before[v] {
					path = append(path, v.String())
				}
				path = append(path, from.String())
				slices.Reverse(path)
				return strings.Join(path, " → ")
			}
			if _, seen := before[w]; !seen && g.circle[w] == g.circle[from] {
				before[w] = next[0]
				next = append(next, w)
			}
		}
	}
	return ""
}

// depth is the length of the longest way through the dependencies of v, where no
// circle is. Answers are remembered in known.
func (g *graph) depth(v types.NamespacedName, known map[types.NamespacedName]int) int {
	if d, ok := known[v]; ok {
		return d
	}
	known[v] = 0 // ends a circle
	deepest := 0
	for _, w := range g.needs[v] {
		deepest = max(deepest, g.depth(w, known)+1)
	}
	known[v] = deepest
	return deepest
}

// nearest returns the first members of a run that are met on the ways through the
// dependencies of v: what v depends on, directly or through others.
func (g *graph) nearest(v types.NamespacedName, member func(types.NamespacedName) bool) []types.NamespacedName {
	var found []types.NamespacedName
	seen := map[types.NamespacedName]bool{v: true}
	for next := []types.NamespacedName{v}; len(next) > 0; next = next[1:] {
		for _, w := range g.needs[next[0]] {
			if seen[w] {
				continue
			}
			seen[w] = true
			if member(w) {
				found = append(found, w)
			} else {
				next = append(next, w)
			}
		}
	}
	slices.SortFunc(found, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	return found
}

// heldBy says which dependency of an application that was lost must be recovered
// first, or is empty. Where applications depend on each other in a circle there
// is no order among them. An application that a person moves is not held.
func (s *Snapshot) heldBy(det Detection, app *v1alpha1.Application) string {
	if len(app.Spec.DependsOn) == 0 {
		return ""
	}
	g, self := s.graph(), key(app)
	for _, dep := range g.nearest(self, func(w types.NamespacedName) bool { return s.unrecovered(det, w) != "" }) {
		if c := g.circle[self]; c != 0 && c == g.circle[dep] {
			continue
		}
		return "it waits for " + dep.String() + ", which it depends on and which " + s.unrecovered(det, dep) +
			": to move it at once, tripodctl failover " + self.String()
	}
	return ""
}

// unrecovered says how a loss of an application is not made up for yet.
func (s *Snapshot) unrecovered(det Detection, name types.NamespacedName) string {
	app := s.application(name)
	for _, d := range s.datasetsOf(app) {
		switch {
		case d.Status.Phase == v1alpha1.DatasetSteady && det.Classes[d.Status.Primary] == Lost:
			return "is lost with " + d.Status.Primary
		case d.Status.Run != "" && (d.Status.Phase == v1alpha1.DatasetFencing || d.Status.Phase == v1alpha1.DatasetPromoting):
			return "is being moved by run " + d.Status.Run
		}
	}
	if r := s.activeRun(app); r != nil && r.Spec.Action == v1alpha1.ActionFailover &&
		(r.Status.Phase == v1alpha1.RunRouting || r.Status.Phase == v1alpha1.RunVerifying) {
		return "is being moved by run " + r.Name
	}
	return ""
}
