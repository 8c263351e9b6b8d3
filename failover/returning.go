package failover

import (
	"fmt"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A switchover returns to its source until the target is committed as Steady.
// Where it stands is what its datasets say:
//
//	Closing    the source has its role still: Steady at the same epoch, reopen
//	Fencing    nobody was granted the epoch: the source is promoted at the next
//	Promoting  the target may have been promoted, and waits for the source with
//	           every write: it is fenced at the next epoch, then the source is
//	           promoted
//	Steady     the target is open: too late

// turnBack returns when a person asks for it, a step takes too long or a side is
// lost. It is true when it did.
func (x *step) turnBack() bool {
	if !x.planned() {
		return false
	}
	if x.overruled() {
		return true
	}
	late := false
	for _, rd := range x.status().Datasets {
		d := x.was.dataset(rd.Name)
		late = late || d != nil && d.Status.Epoch >= rd.Epoch && d.Status.Phase == v1alpha1.DatasetSteady
	}
	reason, message := x.whyBack()
	switch {
	case reason == "":
		return false
	case late:
		x.tooLate()
		return false
	}
	x.returnTo(reason, message)
	return true
}

// whyBack says why the run must return, or is empty.
func (x *step) whyBack() (reason, message string) {
	closing := x.was.Run.Status.Phase == v1alpha1.RunClosing
	for _, rd := range x.status().Datasets {
		source, target := x.det.Classes[rd.PreviousPrimary], x.det.Classes[rd.Target]
		switch {
		case source == Lost && closing:
			return ReasonSourceLost, fmt.Sprintf("%s was lost before the epoch was committed: a failover is decided upon by itself", rd.PreviousPrimary)
		case source != Healthy && source != Unobservable && !closing:
			return "", "" // there is nothing to return to: the target goes on
		case target == Lost:
			reason, message = ReasonTargetLost, rd.Target+" was lost before it took over"
		}
	}
	if by := x.abortedBy(); by != "" {
		return ReasonAborted, "aborted by " + by
	}
	if limit := x.pauseLimit(); reason == "" && x.closedFor() >= limit {
		return ReasonPauseLimit, fmt.Sprintf("writes were closed for %v and not open yet: %s", limit, x.was.Run.Status.Message)
	}
	return reason, message
}

// tooLate tells who asked for an abort that the target is open.
func (x *step) tooLate() {
	by := x.abortedBy()
	if by == "" || !x.planned() {
		return
	}
	run := x.was.Run
	rd := x.status().Datasets[0]
	x.wait(ReasonTooLate, fmt.Sprintf("%s asked for an abort when %s was the primary already: to go back run tripodctl switchover %s/%s --to %s",
		by, rd.Target, run.Spec.Application.Namespace, run.Spec.Application.Name, rd.PreviousPrimary))
}

// overruled returns when a leader has begun the return on a dataset and could
// not journal it.
func (x *step) overruled() bool {
	if !x.planned() {
		return false
	}
	for _, rd := range x.status().Datasets {
		d := x.was.dataset(rd.Name)
		if d == nil {
			continue
		}
		ours := d.Status.Run == x.was.Run.Name
		if ours && (d.Status.Phase == v1alpha1.DatasetSteady || d.Status.Epoch > rd.Epoch) || d.Status.ReturnedRun == x.was.Run.Name {
			x.returnTo(ReasonReturns, "the return to "+rd.PreviousPrimary+" has begun")
			return true
		}
	}
	return false
}

// returnTo decides to return. Each dataset takes the first step of its return,
// which it takes once: the others wait until the decision is journalled.
func (x *step) returnTo(reason, message string) {
	x.enter(v1alpha1.RunReturning)
	x.wait(reason, message)
	x.note(NoteDecision, x.was.Run.Name, "returns to its source: "+reason+": "+message, 0)
	// What this turn was about to do with another dataset is not done.
	x.commands = nil
	for i, d := range x.was.Datasets {
		x.now.Datasets[i] = d.DeepCopy()
	}
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		if d := x.was.dataset(rd.Name); d != nil && d.Status.Run == x.was.Run.Name {
			x.leave(d, rd)
		}
	}
}

// leave takes the role change of a dataset back. It is false when that has
// been done already.
func (x *step) leave(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	next := x.now.dataset(d.Name)
	a := rd.PreviousPrimary
	switch {
	case d.Status.Phase == v1alpha1.DatasetClosing:
		// The run keeps the dataset until the source writes again.
		next.Status.Phase, next.Status.CatchUp = v1alpha1.DatasetSteady, nil
		next.Status.ReturnedRun = x.was.Run.Name
		x.begin(stepReopen, a, d.Name)
	case d.Status.Phase == v1alpha1.DatasetFencing && d.Status.Primary == rd.Target:
		x.note(NoteDecision, key(d).String(), fmt.Sprintf("epoch %d: %s takes the role again, nobody was granted epoch %d", d.Status.Epoch+1, a, d.Status.Epoch), 0)
		advance(next, a)
		next.Status.Phase, next.Status.FenceProof = v1alpha1.DatasetPromoting, v1alpha1.FenceNotGranted
		next.Status.CatchUp = nil
		x.begin(stepPromoteBack, a, d.Name)
	case d.Status.Phase == v1alpha1.DatasetPromoting && d.Status.Primary == rd.Target:
		x.takeRole(next, a)
		next.Status.CatchUp = nil
		x.begin(stepFenceBack, rd.Target, d.Name)
	default:
		return false
	}
	return true
}

// returning brings every dataset back to its source and then ends the run.
func (x *step) returning() {
	st := x.status()
	all, opened := true, false
	for i := range st.Datasets {
		rd := &st.Datasets[i]
		d := x.was.dataset(rd.Name)
		opened = opened || d != nil && d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Epoch == rd.Epoch && d.Status.Primary == rd.Target
		all = x.back(d, rd) && all
	}
	switch {
	case !all:
		return
	case opened: // two leaders wrote at once, and the other one's write was first
		x.enter(v1alpha1.RunRouting)
		x.tooLate()
		return
	}
	if st.Reason != ReasonSourceLost {
		x.opened()
	}
	reason, message := st.Reason, st.Message
	if len(st.Datasets) > 0 {
		message += fmt.Sprintf("; %s is the primary as before", st.Datasets[0].PreviousPrimary)
	}
	x.abort(reason, message)
}

// back takes the next step of one dataset. It is true when it has arrived.
func (x *step) back(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	switch {
	case d == nil || d.Status.Run != x.was.Run.Name:
		return true // it has arrived, or is another run's
	case x.leave(d, rd):
	case d.Status.Phase == v1alpha1.DatasetSteady:
		x.reopen(d, rd)
	case d.Status.Phase == v1alpha1.DatasetFencing:
		x.fenceBack(d, rd)
	case d.Status.Phase == v1alpha1.DatasetPromoting:
		x.promoteBack(d, rd)
	}
	return false
}

// reopen lets the source write again at its old epoch. A source that is lost is
// left to the failover that follows; one that returns is opened by Protect.
func (x *step) reopen(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) {
	a := rd.PreviousPrimary
	if x.det.Classes[a] == Lost || x.openOne(d, a, stepReopen, Command{Verb: VerbPromote}) {
		x.now.dataset(d.Name).Status.Run = ""
	}
}

// fenceBack proves that the target, which may have been promoted, has stopped.
func (x *step) fenceBack(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) {
	if rd.ReturnRevision == 0 {
		rd.ReturnRevision = revision(d)
	}
	found := x.stopped(d, rd.Target, rd.ReturnRevision, stepFenceBack)
	if found.proof == v1alpha1.FenceNone {
		return
	}
	next := x.now.dataset(d.Name)
	next.Status.Phase, next.Status.FenceProof = v1alpha1.DatasetPromoting, found.proof
	x.finish(stepFenceBack, rd.Target, d.Name, string(found.proof)+": "+found.text)
	x.begin(stepPromoteBack, rd.PreviousPrimary, d.Name)
	x.note(NoteDecision, key(d).String(), fmt.Sprintf("%s is proven stopped at epoch %d by %s: %s", rd.Target, d.Status.Epoch, found.proof, found.text), 0)
}

// promoteBack makes the source the primary again, at an epoch of its own.
func (x *step) promoteBack(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) {
	a := rd.PreviousPrimary
	result, done := x.carry(stepPromoteBack, Command{Cluster: a, Dataset: key(d), Verb: VerbPromote,
		Epoch: d.Status.Epoch, Primary: a, SyncSet: []string{a}})
	if !done || result.Outcome != Done {
		return
	}
	settle(x.now.dataset(d.Name), nil) // the target has done nothing wrong
	text := fmt.Sprintf("proven by a write at %s, timeline %d, in %v", result.Position, result.Timeline, result.Elapsed)
	x.finish(stepPromoteBack, a, d.Name, text)
	x.note(NoteResult, a, text, 0)
}

// targetGone ends a run whose target was lost after it took over: the losses of
// the new primary are decided upon as any other.
func (x *step) targetGone() bool {
	st := x.status()
	if st.Phase != v1alpha1.RunVerifying && !x.planned() {
		return false
	}
	for _, rd := range st.Datasets {
		d := x.was.dataset(rd.Name)
		if x.det.Classes[rd.Target] == Lost && d != nil && d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Epoch == rd.Epoch {
			x.abort(ReasonTargetLost, fmt.Sprintf("%s was lost after it took over: a failover is decided upon by itself", rd.Target))
			return true
		}
	}
	return false
}
