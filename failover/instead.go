package failover

import (
	"fmt"
	"math"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A failover whose target is lost, or refuses, after the old primary was given up for
// it stands in Promoting. People may order another run instead of it, to a third copy
// or back to the old primary. That one is a failover like any other, away from a
// primary that may have begun: its own epoch, the proof that the target has stopped,
// and the loss shown before anything is changed. The first run rests meanwhile; it is
// aborted when the other has committed its epoch, and goes on if that ends before.

// Reasons of two runs of which one takes the other's place.
const (
	ReasonReplaced  = "Replaced"
	ReasonInsteadOf = "WaitsForOtherRun"
)

// successor is the oldest unfinished run that was ordered instead of another one, or nil.
func (s *Snapshot) successor(of *v1alpha1.RecoveryRun) *v1alpha1.RecoveryRun {
	app := s.application(applicationKey(of.Spec.Application))
	if app == nil {
		return nil
	}
	return s.oldest(app, func(r *v1alpha1.RecoveryRun) bool { return r.Spec.InsteadOf == of.Name })
}

// stalls is the phase in which a run may be replaced: nothing but its target's
// promotion is missing. Before it the old primary may still run, and after it the
// target is the primary.
func stalls(run *v1alpha1.RecoveryRun) bool {
	st := run.Status
	return !run.Spec.Action.Planned() &&
		(st.Phase == v1alpha1.RunPromoting || st.Phase == v1alpha1.RunPaused && st.ResumePhase == v1alpha1.RunPromoting)
}

// replaced holds a run that stalls while another is to take its place, and ends it when
// that has. It is true when nothing else is done.
func (x *step) replaced() bool {
	run, st := x.was.Run, x.status()
	if !stalls(run) {
		return false
	}
	for i := range st.Datasets {
		if x.overtaken(x.was.dataset(st.Datasets[i].Name), &st.Datasets[i]) {
			return true
		}
	}
	next := x.successor(run)
	switch {
	case next != nil && st.Reason != ReasonReplaced:
		x.pause(ReasonReplaced, fmt.Sprintf("run %s was ordered instead: to let this one go on, tripodctl run abort %s", next.Name, next.Name))
	case next == nil && st.Phase == v1alpha1.RunPaused && st.Reason == ReasonReplaced:
		x.resume("the run that was ordered instead has ended and has changed nothing")
	case next == nil:
		return false
	}
	return true
}

// waitsForRest ends or holds back a run that was ordered instead of another until that
// one rests: of two runs only one changes a dataset.
func (x *step) waitsForRest() bool {
	spec := x.was.Run.Spec
	old := x.run(spec.InsteadOf)
	switch {
	case spec.InsteadOf == "":
		return false
	case slices.ContainsFunc(x.was.Datasets, func(d *v1alpha1.Dataset) bool { return x.inherits(d) && d.Status.UnsettledAfter == 0 }):
		x.abort(ReasonNothingToDo, fmt.Sprintf("run %s is of a hub of an older version, which did not note what its proofs rest on: bring its target back. Nothing was changed", spec.InsteadOf))
	case old == nil:
		return false
	case old.Spec.Application != spec.Application:
		x.abort(ReasonNothingToDo, fmt.Sprintf("run %s is not of %s/%s: nothing was changed", old.Name, spec.Application.Namespace, spec.Application.Name))
	case old.Spec.Action.Planned():
		x.abort(ReasonNothingToDo, fmt.Sprintf("run %s is a %s and can go back: tripodctl run abort %s. Nothing was changed", old.Name, old.Spec.Action, old.Name))
	case Finished(old.Status.Phase) || stalls(old) && old.Status.Phase == v1alpha1.RunPaused:
		return false
	default:
		if x.status().Phase != v1alpha1.RunPreflight {
			x.enter(v1alpha1.RunPreflight)
		}
		x.wait(ReasonInsteadOf, fmt.Sprintf("run %s is in %s: it can be replaced while it waits for its target's promotion. %s", old.Name, old.Status.Phase, old.Status.Message))
	}
	return true
}

// inherits is true for a dataset that waits for the target of the run that this one
// was ordered instead of.
func (x *step) inherits(d *v1alpha1.Dataset) bool {
	of := x.was.Run.Spec.InsteadOf
	return of != "" && d.Status.Run == of && d.Status.Phase == v1alpha1.DatasetPromoting
}

// inherited are the datasets that move: those that wait for the promotion, and those
// that the same target has taken over already, because an application stays together.
func (x *step) inherited() []*v1alpha1.Dataset {
	if !slices.ContainsFunc(x.was.Datasets, x.inherits) {
		return nil
	}
	old := x.run(x.was.Run.Spec.InsteadOf)
	var all []*v1alpha1.Dataset
	for _, d := range x.was.Datasets {
		took := old != nil && slices.ContainsFunc(old.Status.Datasets, func(rd v1alpha1.RunDataset) bool {
			return rd.Name == d.Name && d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Epoch == rd.Epoch && d.Status.Primary == rd.Target
		})
		if took || x.inherits(d) {
			all = append(all, d)
		}
	}
	return all
}

// insteadHint says how a person can take another copy where a target cannot take over.
func (x *step) insteadHint() string {
	run := x.was.Run
	return fmt.Sprintf("; or take another copy, or the old primary again: tripodctl failover %s/%s --instead-of %s",
		run.Spec.Application.Namespace, run.Spec.Application.Name, run.Name)
}

// unsettled is true for a dataset whose coming primary may have begun, and was not seen
// to: until it is proven stopped it may acknowledge what no other copy holds.
func unsettled(d *v1alpha1.Dataset) bool {
	return d.Status.Phase == v1alpha1.DatasetPromoting && d.Status.CatchUp == nil
}

// lacksUnsettled bounds the time since the newest instant up to which a copy surely held
// everything that anybody acknowledged; false if it is not known. A member of the
// committed sync set holds all of what was acknowledged before the promotions that came
// to nothing, and so does the old primary, which had stopped.
func (s *Snapshot) lacksUnsettled(d *v1alpha1.Dataset, target string) (time.Duration, bool) {
	if inSyncSet(d, target) && d.Status.UnsettledAfter > 0 {
		age, known := s.ageOf(d.Status.UnsettledAfter)
		return age + s.Config.transit(), known
	}
	if o, seen := s.Observed[Copy{key(d), target}]; seen && o.Held != nil {
		return *o.Held + s.Config.transit(), true
	}
	return 0, false
}

// ageOf bounds the age of a commit, by the newest renewal of anybody that was applied
// before it; false where this member has not applied renewals in time since.
func (s *Snapshot) ageOf(revision int64) (time.Duration, bool) {
	youngest := time.Duration(math.MaxInt64)
	for _, c := range s.Fleet.Clusters {
		_, age := s.Fence(c.Name, revision)
		youngest = min(youngest, age)
	}
	return youngest, youngest < s.Fleet.Prompt
}

// stepEarlier is the fence of a former primary that lingers.
const stepEarlier = "fence-earlier"

// lingers is true where the stop of the last target does not prove that of the primary
// before it: the coming primary is neither that one itself nor one whose pledge it needs.
func lingers(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	former := d.Status.Lingers
	return former != "" && former != rd.Target && former != rd.PreviousPrimary && !inSyncSet(d, rd.Target)
}

// noLonger adds to the proof that the last target has stopped the one that the primary
// before it has, where that lingers.
func (x *step) noLonger(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset, last finding) finding {
	former := d.Status.Lingers
	if !lingers(d, rd) {
		return last
	}
	found := x.stopped(d, former, rd.FencingRevision, stepEarlier)
	if found.proof != v1alpha1.FenceNone {
		x.finish(stepEarlier, former, d.Name, string(found.proof)+": "+found.text)
		x.now.dataset(d.Name).Status.Lingers = ""
		last.text += fmt.Sprintf("; and %s by %s: %s", former, found.proof, found.text)
		return last
	}
	if found.text == "" {
		found.text = fmt.Sprintf("%s may live on a pledge of %s: waiting for the proof that it has stopped, too", former, rd.PreviousPrimary)
	}
	return found
}

// lossUnsettled is what people are shown: what was acknowledged until the last that was
// named a primary has stopped.
func (s *Snapshot) lossUnsettled(d *v1alpha1.Dataset, target string) (v1alpha1.LossEstimate, int64) {
	named := d.Status.Primary
	lacks, known := s.lacksUnsettled(d, target)
	if !known {
		loss := unknown(fmt.Sprintf("%s was named the primary of %s and may have acknowledged writes, and this leader has not seen what %s holds of what came before", named, key(d), target))
		return loss, loss.Seconds
	}
	stopsBy, soFar := s.Config.leaseBound()+s.Config.Answer, lacks
	if _, silent := s.Fence(named, 0); silent > s.Config.Suspect && s.outlives(d, named) == "" && inSyncSet(d, target) {
		stopsBy, soFar = s.Config.leaseBound(), max(0, lacks-silent)
	}
	loss := v1alpha1.LossEstimate{Possible: true, Seconds: ceil(soFar + stopsBy), Bytes: s.missing(d, target)}
	loss.Message = fmt.Sprintf("dataset %s: %s may lack what %s, which was named the primary, acknowledged until it is proven stopped: %d s at most if that takes no longer than %v, else the run asks again",
		key(d), target, named, loss.Seconds, s.Config.Answer)
	return loss, ceil(soFar)
}

// lostUnsettled is the same when the last that was named, cluster, is proven stopped now.
func (x *step) lostUnsettled(d *v1alpha1.Dataset, cluster string) v1alpha1.LossEstimate {
	target := d.Status.Primary
	lacks, known := x.lacksUnsettled(d, target)
	if !known {
		return unknown(fmt.Sprintf("%s was named the primary and may have acknowledged writes, and this leader has not seen what %s holds", cluster, target))
	}
	if inSyncSet(d, target) && x.outlives(d, cluster) == "" {
		_, silent := x.Fence(cluster, 0)
		lacks -= max(0, silent-x.Config.leaseBound())
	}
	return v1alpha1.LossEstimate{Possible: true, Seconds: max(0, ceil(lacks))}
}
