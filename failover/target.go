package failover

import (
	"cmp"
	"fmt"
	"slices"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Target is a cluster that could take over, and under which conditions.
type Target struct {
	Cluster string
	// NeedsApproval is why a person must agree, or empty.
	NeedsApproval string
	Loss          v1alpha1.LossEstimate
	// soFar is Loss without what may be added while people think, in seconds.
	soFar int64
}

// candidate ranks one cluster for all datasets of an application.
type candidate struct {
	Target
	sync, sameRegion bool
	// unsettled is who was named the primary last and may have acknowledged what this
	// one lacks, or empty; inSet is true where that is all that it may lack.
	unsettled string
	inSet     bool
	held      string // why it should not take over now, or empty
}

// Choose returns the best target for the datasets that move together, or why
// there is none. A target in the committed sync set and the same region may be
// automatic; every other one needs a person (safety.md sections 5 and 8).
func Choose(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset) (Target, string) {
	c, why := choose(s, det, app, datasets, v1alpha1.Place{}, v1alpha1.Place{})
	return c.Target, why
}

// choose is Choose among the clusters that a run from one place to another may
// take.
func choose(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset, from, to v1alpha1.Place) (candidate, string) {
	var found []candidate
	why := ""
	for _, m := range datasets[0].Spec.Members {
		c, reason := weigh(s, det, app, datasets, m.Cluster)
		if place, _ := s.Fleet.Cluster(m.Cluster); reason == "" && !targets(place, from, to) {
			reason = "is not where the run goes to"
		}
		if reason != "" {
			if m.Cluster != datasets[0].Status.Primary {
				why += fmt.Sprintf("%s: %s; ", m.Cluster, reason)
			}
			continue
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return candidate{}, "no target: " + why + "bring one of them back, or add a member"
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		return cmp.Or(first(a.sync, b.sync), first(a.inSet, b.inSet), first(a.sameRegion, b.sameRegion), first(a.held == "", b.held == ""),
			cmp.Compare(a.Loss.Bytes, b.Loss.Bytes))
	})
	return found[0], ""
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// weigh judges one cluster as the target of all datasets, or says why not.
func weigh(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset, name string) (candidate, string) {
	c := candidate{Target: Target{Cluster: name}, sync: true, sameRegion: true, inSet: true}
	to, ok := s.Fleet.Cluster(name)
	if !ok {
		return c, "is not an accepted cluster"
	}
	if class := det.Classes[name]; class != Healthy {
		return c, "is " + string(class)
	}
	for _, d := range datasets {
		if member(d, name) == nil {
			return c, "holds no copy of dataset " + key(d).String()
		}
		if d.Status.Primary == name {
			return c, "is the primary"
		}
		if o, ok := s.Observed[Copy{key(d), name}]; ok && o.State == v1alpha1.StateDiverged {
			return c, "has diverged"
		}
		if why := s.incomplete(d, name); why != "" {
			return c, why
		}
		if why := s.behind(det, d, name); why != "" {
			return c, why
		}
		from, known := s.Fleet.Cluster(d.Status.Primary)
		c.sameRegion = c.sameRegion && known && from.Region == to.Region
		if unsettled(d) {
			c.unsettled = d.Status.Primary
		}
		c.inSet = c.inSet && inSyncSet(d, name)
		if !inSyncSet(d, name) || unsettled(d) {
			c.sync = false
			loss, soFar := s.estimateLoss(d, name)
			c.Loss, c.soFar = worse(c.Loss, loss), max(c.soFar, soFar)
		}
	}
	c.held = s.held(app, datasets, name)
	c.NeedsApproval = needsApproval(app, c, to)
	return c, ""
}

func needsApproval(app *v1alpha1.Application, c candidate, to Cluster) string {
	policy := app.Spec.Failover
	switch {
	case c.unsettled != "" && c.inSet:
		return fmt.Sprintf("%s was named the primary before %s: what it may have acknowledged may be lost", c.unsettled, c.Cluster)
	case !c.sync:
		return fmt.Sprintf("%s is not in the committed sync set: acknowledged writes may be lost", c.Cluster)
	case !c.sameRegion && policy.AcrossRegions != v1alpha1.FailoverAutomatic:
		return fmt.Sprintf("%s is in another region, %s", c.Cluster, to.Region)
	case c.sameRegion && (policy.WithinRegion == v1alpha1.FailoverApproval || policy.WithinRegion == v1alpha1.FailoverManual):
		return "the application's policy withinRegion asks for approval"
	case c.held != "":
		return c.held
	}
	return ""
}
