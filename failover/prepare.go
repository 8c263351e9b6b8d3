package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// preflight decides whether the run may begin. Nothing has been changed yet, so
// it may also end here without a trace on the datasets.
func (x *step) preflight() {
	run := x.was.Run
	if x.resumeCommitted() || x.withdrawn() || x.waitsForRest() {
		return
	}
	moving := x.moving()
	if len(moving) == 0 {
		x.abort(ReasonNothingToDo, x.nothing())
		return
	}
	if x.unasked() && x.gone(moving) || x.planned() && x.sourceLost(moving) || x.gated(moving) {
		return
	}
	target, why := x.target(moving)
	if why != "" {
		if x.status().Phase != v1alpha1.RunPreflight {
			x.enter(v1alpha1.RunPreflight)
		}
		x.wait(ReasonNoTarget, why)
		return
	}
	if x.parentPaused() {
		return
	}
	x.plan(moving, target)
	if target.NeedsApproval != "" && !x.covered(target, moving) {
		x.enter(v1alpha1.RunAwaitingApproval)
		x.status().Timeline.AwaitingSince = x.mark()
		x.status().Loss = shown(target)
		x.wait(ReasonApproval, x.question(target))
		x.begin(stepApprove, "", "")
		return
	}
	x.status().Automatic = run.Spec.Requester == "" && target.NeedsApproval == ""
	x.start(moving, target.Cluster)
}

// nothing says why the run has nothing to do.
func (x *step) nothing() string {
	spec := x.was.Run.Spec
	if spec.InsteadOf != "" {
		return fmt.Sprintf("no dataset of %s/%s waits for the target of run %s: nothing was changed", spec.Application.Namespace, spec.Application.Name, spec.InsteadOf)
	}
	if spec.Action == v1alpha1.ActionFailback {
		return fmt.Sprintf("every dataset of %s/%s is at home: nothing was changed", spec.Application.Namespace, spec.Application.Name)
	}
	return fmt.Sprintf("no dataset of %s/%s has its primary in %s%s: nothing was changed",
		spec.Application.Namespace, spec.Application.Name, spec.From.Cluster, spec.From.Center)
}

// unasked is true for a failover that the engine decided upon by itself, for a
// loss. What the loss was must still be so when anything is changed.
func (x *step) unasked() bool { return x.was.Run.Spec.Requester == "" && !x.planned() }

// start makes the first change: the epoch, or for a switchover the write ban.
func (x *step) start(moving []*v1alpha1.Dataset, target string) {
	if x.planned() {
		x.startClosing(moving, target)
		return
	}
	x.startFencing(moving, target)
}

func shown(t Target) *v1alpha1.LossEstimate {
	l := t.Loss
	return &l
}

// resumeCommitted goes on when an earlier leader committed the epoch but died
// before it journalled that.
func (x *step) resumeCommitted() bool {
	for _, d := range x.was.Datasets {
		if d.Status.Run == x.was.Run.Name {
			phase := v1alpha1.RunFencing
			if x.planned() {
				phase = v1alpha1.RunClosing
			}
			x.enter(phase)
			if len(x.status().Datasets) == 0 {
				x.adopt()
			}
			return true
		}
	}
	return false
}

// gone aborts an automatic run whose reason has healed before anything was
// changed, and holds it back while the breaker is open.
func (x *step) gone(moving []*v1alpha1.Dataset) bool {
	if !x.anyIs(Lost, moving) && !x.anyIs(Silent, moving) {
		x.abort(ReasonSourceBack, "the lost side is heard again: nothing was changed")
		return true
	}
	if x.det.Breaker != "" || x.det.Waiting != "" {
		x.wait(ReasonBreaker, x.det.Breaker+x.det.Waiting)
		return true
	}
	// If it is only silent, a new leader has not watched for long enough yet.
	return !x.anyIs(Lost, moving)
}

func (x *step) anyIs(class Class, datasets []*v1alpha1.Dataset) bool {
	return slices.ContainsFunc(datasets, func(d *v1alpha1.Dataset) bool { return x.det.Classes[d.Status.Primary] == class })
}

// moving are the datasets that the run takes over: those whose primary is in
// the place that the run leaves.
func (x *step) moving() []*v1alpha1.Dataset {
	if x.was.Run.Spec.Action == v1alpha1.ActionFailback {
		return slices.DeleteFunc(astray(x.was.Datasets), func(d *v1alpha1.Dataset) bool { return d.Status.ReturnedRun == x.was.Run.Name })
	}
	if x.was.Run.Spec.InsteadOf != "" {
		return x.inherited()
	}
	all := x.leaves(x.was.Datasets, x.was.Run.Spec.From, x.was.Run.Spec.To)
	return slices.DeleteFunc(all, func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase != v1alpha1.DatasetSteady || d.Status.ReturnedRun == x.was.Run.Name
	})
}

// target is the ordered one if the spec names one, else the best.
func (x *step) target(moving []*v1alpha1.Dataset) (Target, string) {
	to := x.was.Run.Spec.To
	if x.planned() {
		return x.plannedTarget(moving)
	}
	if to.Cluster != "" {
		c, why := weigh(x.Snapshot, x.det, x.was.App, moving, to.Cluster)
		if why != "" {
			return Target{}, fmt.Sprintf("target %s %s: the run waits for it, or abort the run and name another one", to.Cluster, why)
		}
		return c.Target, ""
	}
	c, why := choose(x.Snapshot, x.det, x.was.App, moving, x.was.Run.Spec.From, to)
	return c.Target, why
}

// parentPaused holds a run that has changed nothing yet while a person has paused
// the plan's run that ordered it.
func (x *step) parentPaused() bool {
	p := x.run(x.was.Run.Spec.Parent)
	if p == nil || p.Status.Phase != v1alpha1.RunPaused || p.Status.Reason != ReasonPausedByPerson {
		return false
	}
	x.wait(ReasonParentPaused, fmt.Sprintf("run %s is paused: %s", p.Name, p.Status.Message))
	return true
}

// plan journals which dataset moves from where to where.
func (x *step) plan(moving []*v1alpha1.Dataset, target Target) {
	st := x.status()
	st.Datasets = nil
	for _, d := range moving {
		st.Datasets = append(st.Datasets, v1alpha1.RunDataset{Name: d.Name, PreviousPrimary: d.Status.Primary,
			Target: target.Cluster, PreviousEpoch: d.Status.Epoch, Epoch: d.Status.Epoch + 1})
		since := x.sinceHeard(d.Status.Primary, 0)
		x.note(NoteObservation, d.Status.Primary, fmt.Sprintf("%s is %s: %s; sync set of %s is [%s] at epoch %d", d.Status.Primary,
			x.det.Classes[d.Status.Primary], x.det.Reasons[d.Status.Primary], key(d), strings.Join(d.Status.SyncSet, " "), d.Status.Epoch), since)
	}
	x.decided()
	x.note(NoteDecision, target.Cluster, fmt.Sprintf("target %s; approval: %s; possible loss: %v", target.Cluster, orNone(target.NeedsApproval), target.Loss.Possible), 0)
}

// decided marks that the run is decided upon, once: what it moves is in its journal.
func (x *step) decided() {
	st := x.status()
	if st.Timeline.DetectedAt != nil || len(st.Datasets) == 0 {
		return
	}
	since := x.sinceHeard(st.Datasets[0].PreviousPrimary, 0)
	if slices.ContainsFunc(st.Datasets, func(rd v1alpha1.RunDataset) bool { return x.det.Classes[rd.PreviousPrimary] == Healthy }) {
		since = 0 // nothing had to be detected; the source is heard again and again until it is fenced
	}
	st.Timeline.DetectedAt = x.mark()
	heard := metav1.NewMicroTime(x.Now.Add(-since))
	st.Timeline.LastHeard = &heard
	st.Measured = &v1alpha1.Measured{DetectSeconds: seconds(since)}
	x.milestone(MarkDetected, NoteDecision, x.was.Run.Spec.From.Cluster, "the run is decided upon", since)
}

func orNone(s string) string {
	if s == "" {
		return "not needed"
	}
	return s
}

func (x *step) question(t Target) string {
	text := t.NeedsApproval
	if t.Loss.Possible {
		text += fmt.Sprintf("; possible loss (%s): %s", extent(&t.Loss), t.Loss.Message)
	}
	return fmt.Sprintf("%s. Approve with: tripodctl approve %s", text, x.was.Run.Name)
}

// awaitApproval waits for people. The loss that they are shown is the one that
// was estimated when the question was asked; the source has stopped writing by
// then, or it is heard again and the question is void.
func (x *step) awaitApproval() {
	run, st := x.was.Run, x.status()
	if x.resumeCommitted() {
		return
	}
	moving := x.moving()
	if x.withdrawn() || x.planned() && x.sourceLost(moving) {
		return
	}
	if len(moving) > 0 && x.gated(moving) {
		return
	}
	if len(moving) == 0 || x.unasked() && !x.anyIs(Lost, moving) && !x.anyIs(Silent, moving) {
		x.abort(ReasonSourceBack, "the lost side is heard again: nothing was changed")
		return
	}
	since := time.Time{}
	if st.Timeline.AwaitingSince != nil {
		since = st.Timeline.AwaitingSince.Time
	}
	if !x.planned() {
		x.grows(moving)
	}
	approved := CountApprovals(x.Snapshot, x.policyOf(run), run.Name, stepApprove, run.Spec.Requester, since, st.Loss)
	if approved.Rejected != "" {
		x.abort(ReasonRejected, "rejected by "+approved.Rejected)
		return
	}
	if !approved.Enough {
		x.answersItself(moving)
		return
	}
	target, why := x.target(moving)
	switch {
	case why != "":
		x.wait(ReasonNoTarget, "approved, but "+why)
		return
	case target.Cluster != x.was.Run.Status.Datasets[0].Target:
		x.wait(ReasonNoTarget, fmt.Sprintf("approved for %s, which is no longer the target: abort this run and start another one",
			x.was.Run.Status.Datasets[0].Target))
		return
	}
	for _, by := range approved.By {
		x.note(NoteApproval, by, fmt.Sprintf("approved; accepts the loss that was shown: %+v", *st.Loss), 0)
	}
	st.Timeline.ApprovedAt = x.mark()
	x.finish(stepApprove, "", "", "approved by "+strings.Join(approved.By, ", "))
	x.start(moving, target.Cluster)
}

// answersItself starts a run that would not ask today: the hold of its target has
// passed, or the policy was changed.
func (x *step) answersItself(moving []*v1alpha1.Dataset) {
	if x.unasked() && (!x.det.Automatic() || !x.anyIs(Lost, moving)) {
		return
	}
	target, why := x.target(moving)
	if why != "" || target.NeedsApproval != "" {
		return
	}
	x.plan(moving, target)
	st := x.status()
	st.Loss, st.Automatic = nil, x.was.Run.Spec.Requester == ""
	x.finish(stepApprove, "", "", "no longer needed: "+x.was.Run.Status.Message)
	x.start(moving, target.Cluster)
}

// grows shows the loss anew when more is lost by now: a source that is not lost, or
// outlives its lease, goes on writing while people think. Who accepted less has not
// accepted this.
func (x *step) grows(moving []*v1alpha1.Dataset) {
	st := x.status()
	target, why := x.target(moving)
	if why != "" || st.Loss == nil || target.Cluster != st.Datasets[0].Target || target.soFar <= st.Loss.Seconds {
		return
	}
	st.Loss = shown(target)
	x.wait(ReasonApproval, x.question(target))
}

// seconds writes a duration as Measured wants it.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
