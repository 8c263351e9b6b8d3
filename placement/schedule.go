package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// MaxReplicas is the most replicas of one template that Divide shares out.
const MaxReplicas = 20000

// Schedule computes the decision for a snapshot. Equal snapshots give equal
// decisions, whatever the order of their lists.
func Schedule(s Snapshot) Decision {
	w := newWork(s)
	if len(w.templates) == 0 {
		return w.nothingSelected()
	}
	if err := w.filter(); err != nil {
		return w.stand(ReasonInvalid, err.Error()+": correct spec.clusters.labelSelector")
	}
	if len(w.eligible) == 0 {
		return w.stand(ReasonNoCluster, fmt.Sprintf(
			"placement %s/%s: none of %d clusters can take it: status.rejected says why for each; what ran before is left as it is",
			s.Placement.Namespace, s.Placement.Name, len(w.clusters)))
	}
	bs := bounds(s.Placement)
	chosen, broken := choose(bs, w.eligible, w.prefer)
	if broken != nil {
		return w.stand(ReasonSpreadUnsatisfiable, fmt.Sprintf("placement %s/%s: %s",
			s.Placement.Namespace, s.Placement.Name, broken.explain(w.eligible)))
	}
	w.rejectUnchosen(bs, chosen)
	shares, problem := w.share(bs, chosen)
	if problem != "" {
		return w.stand(ReasonInsufficientCapacity, problem)
	}
	return Decision{
		Shares: shares, Rejected: w.rejected, Left: w.left(shares), Reason: ReasonScheduled,
		Message: fmt.Sprintf("%d templates in %d clusters", len(w.templates), len(shares)),
	}
}

// work holds the sorted inputs and what the steps of one Schedule have found.
type work struct {
	placement *v1alpha1.Placement
	templates []Template
	clusters  []Cluster
	previous  Previous
	held      map[string]v1alpha1.PlacementDecision

	eligible []Cluster
	rejected []v1alpha1.RejectedCluster
}

func newWork(s Snapshot) *work {
	w := &work{
		placement: s.Placement, previous: s.Previous,
		templates: slices.Clone(s.Templates), clusters: slices.Clone(s.Clusters),
		held: map[string]v1alpha1.PlacementDecision{},
	}
	slices.SortFunc(w.templates, func(a, b Template) int {
		return cmp.Or(cmp.Compare(a.Key(), b.Key()), cmp.Compare(a.Ref.APIVersion, b.Ref.APIVersion))
	})
	slices.SortFunc(w.clusters, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	for _, share := range s.Previous.Shares {
		w.held[share.Cluster] = share
	}
	return w
}

func (w *work) nothingSelected() Decision {
	return Decision{
		Reason: ReasonNothingSelected,
		Message: fmt.Sprintf("placement %s/%s selects no template: no object in namespace %s matches %s; "+
			"create one there, or correct spec.resources",
			w.placement.Namespace, w.placement.Name, w.placement.Namespace, describeSelectors(w.placement.Spec.Resources)),
	}
}

// stand repeats the previous decision: what cannot be scheduled is not moved.
func (w *work) stand(reason Reason, message string) Decision {
	shares := slices.Clone(w.previous.Shares)
	slices.SortFunc(shares, func(a, b v1alpha1.PlacementDecision) int { return cmp.Compare(a.Cluster, b.Cluster) })
	left := slices.Clone(w.previous.Left)
	slices.Sort(left)
	return Decision{Shares: shares, Rejected: w.rejected, Left: left, Reason: reason, Message: message}
}

func (w *work) filter() error {
	for _, c := range w.clusters {
		_, holds := w.held[c.Name]
		reasons, err := rejections(w.placement, c, holds)
		if err != nil {
			return err
		}
		if len(reasons) == 0 {
			w.eligible = append(w.eligible, c)
			continue
		}
		if slices.Contains(w.previous.Left, c.Name) {
			reasons = append(reasons, "it still holds what ran there before it was lost: taint it with effect Evacuate to have that deleted")
		}
		w.rejected = append(w.rejected, v1alpha1.RejectedCluster{Cluster: c.Name, Reasons: reasons})
	}
	return nil
}

// prefer orders clusters for choosing: holders of a share, the heavier, by name.
func (w *work) prefer(a, b Cluster) int {
	_, holdsA := w.held[a.Name]
	_, holdsB := w.held[b.Name]
	if holdsA != holdsB {
		if holdsA {
			return -1
		}
		return 1
	}
	if divides(w.placement) {
		if byFreeCapacity(w.placement) {
			if n := cmp.Compare(w.room(b), w.room(a)); n != 0 && !holdsA {
				return n
			}
		} else if n := cmp.Compare(weight(w.placement, b.Name), weight(w.placement, a.Name)); n != 0 {
			return n
		}
	}
	return cmp.Compare(a.Name, b.Name)
}

// room is how many replicas of the first scaled template fit.
func (w *work) room(c Cluster) int64 {
	for _, t := range w.templates {
		if t.Replicas != nil {
			return fits(c.Free, t.Requests)
		}
	}
	return 0
}

func (w *work) rejectUnchosen(bs []bound, chosen []Cluster) {
	names := map[string]bool{}
	for _, c := range chosen {
		names[c.Name] = true
	}
	for _, c := range w.eligible {
		if names[c.Name] {
			continue
		}
		var reasons []string
		for _, b := range bs {
			used := map[string]bool{}
			for _, o := range chosen {
				used[b.domain(o)] = true
			}
			if b.max > 0 && len(used) >= b.max && !used[b.domain(c)] {
				reasons = append(reasons, fmt.Sprintf("%s allows at most %d, and %d are used", b.why, b.max, len(used)))
			}
		}
		w.rejected = append(w.rejected, v1alpha1.RejectedCluster{Cluster: c.Name, Reasons: reasons})
	}
	slices.SortFunc(w.rejected, func(a, b v1alpha1.RejectedCluster) int { return cmp.Compare(a.Cluster, b.Cluster) })
}

// share gives every chosen cluster its part of every template that has replicas.
func (w *work) share(bs []bound, chosen []Cluster) ([]v1alpha1.PlacementDecision, string) {
	shares := make([]v1alpha1.PlacementDecision, len(chosen))
	for i, c := range chosen {
		shares[i].Cluster = c.Name
	}
	if !divides(w.placement) {
		return shares, ""
	}
	var scaled []Template
	for _, t := range w.templates {
		if t.Replicas != nil {
			scaled = append(scaled, t)
		}
	}
	for _, t := range scaled {
		d := w.division(bs, chosen, t)
		if d.declared > MaxReplicas {
			return nil, fmt.Sprintf("%s declares %d replicas and at most %d can be divided", t.Key(), d.declared, MaxReplicas)
		}
		if !d.run() {
			return nil, w.shortage(d, t)
		}
		for i, n := range d.shares {
			n := int32(n)
			if len(scaled) == 1 {
				shares[i].Replicas = &n
				continue
			}
			if shares[i].Templates == nil {
				shares[i].Templates = map[string]int32{}
			}
			shares[i].Templates[t.Key()] = n
		}
	}
	return shares, ""
}

// division sets up the arithmetic for one template. By weight, the weights say
// what is wanted and the past only breaks ties. By free capacity, what runs
// stays and only the difference is placed, for free capacity changes all the
// time, and most of all by placing.
func (w *work) division(bs []bound, chosen []Cluster, t Template) *division {
	d := &division{
		clusters: chosen, declared: int64(max(0, *t.Replicas)),
		survive: int(w.placement.Spec.Replicas.Survive), bounds: bs,
	}
	for _, c := range chosen {
		had := int64(0)
		if share, ok := w.held[c.Name]; ok {
			if n := ReplicasFor(share, t.Ref); n != nil {
				had = int64(*n)
			}
		}
		start, wgt, limit := int64(0), weight(w.placement, c.Name), int64(math.MaxInt32)
		if byFreeCapacity(w.placement) {
			start, wgt = had, fits(c.Free, t.Requests)
			limit = had + wgt
		}
		d.previous = append(d.previous, had)
		d.start = append(d.start, start)
		d.weights = append(d.weights, wgt)
		d.limit = append(d.limit, limit)
	}
	return d
}

func (w *work) shortage(d *division, t Template) string {
	var parts []string
	for i, c := range d.clusters {
		parts = append(parts, fmt.Sprintf("%s %d", c.Name, d.limit[i]))
	}
	return fmt.Sprintf("placement %s/%s: the free capacity does not hold %s with %d replicas (survive %d): at most %s; "+
		"add capacity, lower replicas or requests, or select more clusters",
		w.placement.Namespace, w.placement.Name, t.Key(), d.declared, d.survive, strings.Join(parts, ", "))
}

// left keeps track of clusters that lost their share by loss alone. One leaves
// the list when it gets a share again, is evacuated, deselected or removed.
func (w *work) left(shares []v1alpha1.PlacementDecision) []string {
	var out []string
	for _, c := range w.clusters {
		_, held := w.held[c.Name]
		was := slices.Contains(w.previous.Left, c.Name)
		if slices.ContainsFunc(shares, func(s v1alpha1.PlacementDecision) bool { return s.Cluster == c.Name }) {
			continue
		}
		selected, err := Selects(w.placement.Spec.Clusters, c)
		stays := was && err == nil && selected && !evacuated(c)
		if stays || (held && lostByMove(w.placement, c)) {
			out = append(out, c.Name)
		}
	}
	return out
}
