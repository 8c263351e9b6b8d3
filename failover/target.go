package failover

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Target is a cluster that could take over, and under which conditions.
type Target struct {
	Cluster string
	// NeedsApproval is why a person must agree, or empty.
	NeedsApproval string
	Loss          v1alpha1.LossEstimate
}

// candidate ranks one cluster for all datasets of an application.
type candidate struct {
	Target
	sync, sameRegion bool
	held             string // why it should not take over now, or empty
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
		return cmp.Or(first(a.sync, b.sync), first(a.sameRegion, b.sameRegion), first(a.held == "", b.held == ""),
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
	c := candidate{Target: Target{Cluster: name}, sync: true, sameRegion: true}
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
		if !inSyncSet(d, name) {
			c.sync = false
			c.Loss = worse(c.Loss, EstimateLoss(s, d, name))
		}
	}
	c.held = s.held(app, datasets, name)
	c.NeedsApproval = needsApproval(app, c, to)
	return c, ""
}

func needsApproval(app *v1alpha1.Application, c candidate, to Cluster) string {
	policy := app.Spec.Failover
	switch {
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

// EstimateLoss bounds what promoting target would lose of d, from the newest
// observations of both sides. The bound counts the whole time in which the old
// primary may have gone on acknowledging after it was last heard; where nothing
// bounds that time, what was known last is shown all the same.
func EstimateLoss(s *Snapshot, d *v1alpha1.Dataset, target string) v1alpha1.LossEstimate {
	loss := lossWhenObserved(s, d, target)
	_, silent := s.Fence(d.Status.Primary, 0)
	if silent <= s.Config.Suspect {
		return loss
	}
	why := ""
	switch {
	case !s.guarded(d, d.Status.Primary):
		why = fmt.Sprintf("not every process that can write to %s at %s is guarded, so it may go on writing", key(d), d.Status.Primary)
	case s.failsafe(d):
		why = fmt.Sprintf("%s is not heard, and may go on writing to %s for as long as others pledge to it", d.Status.Primary, key(d))
	default:
		return loss
	}
	if loss.Seconds < unknownLoss {
		why += "; " + loss.Message
	}
	loss.Seconds, loss.Message = unknownLoss, "unknown: "+why
	return loss
}

// lossWhenObserved is for a primary that writes no longer than its lease.
func lossWhenObserved(s *Snapshot, d *v1alpha1.Dataset, target string) v1alpha1.LossEstimate {
	loss := v1alpha1.LossEstimate{Possible: true}
	// Also for one that is heard: it may fall silent in the moment in which somebody
	// agrees, and the target follows it no longer then.
	loss.Seconds = int64(math.Ceil(s.leaseBound().Seconds())) + 1
	t, seen := s.Observed[Copy{key(d), target}]
	if !seen || t.LagSeconds == nil {
		ms := memberStatus(d, target)
		if ms == nil || ms.LagSeconds == nil {
			loss.Seconds = unknownLoss
			loss.Message = fmt.Sprintf("unknown: %s never reported its lag", target)
			return loss
		}
		t.LagSeconds, t.Age = ms.LagSeconds, max(0, s.Now.Sub(ms.ObservedAt.Time))
	}
	loss.Seconds += *t.LagSeconds + int64(math.Ceil(t.Age.Seconds()))
	if p, ok := s.Observed[Copy{key(d), d.Status.Primary}]; ok && seen {
		loss.Bytes = max(0, p.PositionBytes-t.PositionBytes)
	} else if t.LagBytes != nil {
		loss.Bytes = *t.LagBytes
	}
	loss.Message = fmt.Sprintf("dataset %s: %s was %d s and %d bytes behind at most when last observed", key(d), target, loss.Seconds, loss.Bytes)
	return loss
}

// unknownLoss is shown when nothing bounds the loss: ten years.
const unknownLoss = 10 * 365 * 24 * 3600

// leaseBound is how long after its last renewal a primary may still write.
func (s *Snapshot) leaseBound() time.Duration { return 3 * s.Config.Suspect }

func worse(a, b v1alpha1.LossEstimate) v1alpha1.LossEstimate {
	if !a.Possible {
		return b
	}
	if !b.Possible {
		return a
	}
	return v1alpha1.LossEstimate{Possible: true, Seconds: max(a.Seconds, b.Seconds), Bytes: a.Bytes + b.Bytes, Message: a.Message + "; " + b.Message}
}
