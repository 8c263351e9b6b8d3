package failover

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// within is true when cluster c is in place p. The most exact name of a place
// counts; one without a name holds nothing.
func within(c Cluster, p v1alpha1.Place) bool {
	switch {
	case p.Cluster != "":
		return c.Name == p.Cluster
	case p.Center != "":
		return c.Center == p.Center
	case p.Region != "":
		return c.Region == p.Region
	}
	return false
}

func anywhere(p v1alpha1.Place) bool { return p == v1alpha1.Place{} }

// placeName is for people.
func placeName(p v1alpha1.Place) string {
	switch {
	case p.Cluster != "":
		return "cluster " + p.Cluster
	case p.Center != "":
		return "center " + p.Center
	case p.Region != "":
		return "region " + p.Region
	}
	return "anywhere"
}

// targets returns whether a cluster may be the target of a run that goes from one
// place to another: a run that leaves a place does not go to another cluster of it.
func targets(c Cluster, from, to v1alpha1.Place) bool {
	return (anywhere(to) || within(c, to)) && (from.Cluster != "" || !within(c, from))
}

// leaves returns the datasets that a run from one place to another takes over:
// those with their primary in the one and not in the other.
func (s *Snapshot) leaves(datasets []*v1alpha1.Dataset, from, to v1alpha1.Place) []*v1alpha1.Dataset {
	var out []*v1alpha1.Dataset
	for _, d := range datasets {
		c, _ := s.Fleet.Cluster(d.Status.Primary)
		c.Name = d.Status.Primary // it may have been removed from the fleet
		left := from.Cluster != "" && d.Status.Primary == from.Cluster || from.Center != "" && c.Center == from.Center ||
			from.Region != "" && c.Region == from.Region || anywhere(from)
		if left && !within(c, to) {
			out = append(out, d)
		}
	}
	return out
}

// chosen are the applications that a plan's run would move: those of its plan
// (all, without one) with a primary in the place that it leaves. Those of a run
// that nobody ordered have lost it.
func (s *Snapshot) chosen(det Detection, run *v1alpha1.RecoveryRun, plan matcher) []*v1alpha1.Application {
	var out []*v1alpha1.Application
	for _, app := range s.Applications {
		if len(app.Spec.Datasets) == 0 || !plan.selects(app) {
			continue
		}
		datasets := s.datasetsOf(app)
		if run.Spec.Requester == "" {
			datasets = s.lostDatasets(det, app)
		}
		moving := s.movedBy(run, datasets)
		formed := func(d *v1alpha1.Dataset) bool { return d.Status.Phase != v1alpha1.DatasetForming }
		if slices.ContainsFunc(moving, formed) {
			out = append(out, app)
		}
	}
	return out
}

// movedBy are the datasets that a plan's run is about: a failback those that are not
// at home, if their home is where it goes, and a drill all with a primary in the place.
func (s *Snapshot) movedBy(run *v1alpha1.RecoveryRun, datasets []*v1alpha1.Dataset) []*v1alpha1.Dataset {
	switch spec := run.Spec; spec.Action {
	case v1alpha1.ActionFailback:
		return slices.DeleteFunc(astray(s.leaves(datasets, spec.From, v1alpha1.Place{})), func(d *v1alpha1.Dataset) bool {
			home, _ := s.Fleet.Cluster(d.Home())
			return !anywhere(spec.To) && !within(home, spec.To)
		})
	case v1alpha1.ActionDrill:
		return s.leaves(datasets, spec.From, v1alpha1.Place{})
	default:
		return s.leaves(datasets, spec.From, spec.To)
	}
}

// planOf is the plan that a run names, or nil.
func (s *Snapshot) planOf(run *v1alpha1.RecoveryRun) *v1alpha1.RecoveryPlan {
	for _, p := range s.Plans {
		if p.Name == run.Spec.Plan {
			return p
		}
	}
	return nil
}

// cover adds the applications that await their turn in the run of a plan, made by
// the engine, as it is committed and as it is to become: what it gives up may be
// taken up only when that is committed.
func cover(covered map[types.NamespacedName]string, was, next *v1alpha1.RecoveryRun) {
	if was.Spec.Requester != "" {
		return
	}
	for i := range next.Status.Applications {
		a := &next.Status.Applications[i]
		if settled(a.State) && (len(was.Status.Applications) == 0 || settled(was.Status.Applications[i].State)) {
			continue
		}
		why := "run " + was.Name + " moves it"
		if a.Message != "" {
			why += ": " + a.Message
		}
		covered[entryKey(a)] = why
	}
}

func settled(s v1alpha1.RunApplicationState) bool {
	return s == v1alpha1.ApplicationCompleted || s == v1alpha1.ApplicationFailed
}
