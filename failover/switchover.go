package failover

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A switchover moves the role away from a healthy primary: write ban → catch-up
// proof → epoch → promote → route → open. Until it opens the target nothing
// that the source lacks has been acknowledged, so that it can return (returning.go).

// defaultPauseLimit is how long writes may be closed if the run does not say.
const defaultPauseLimit = 10 * time.Second

func (x *step) planned() bool { return x.was.Run.Spec.Action.Planned() }

// sourceLost ends a switchover that has changed nothing yet when its source is
// lost: what follows is decided as for any other loss.
func (x *step) sourceLost(moving []*v1alpha1.Dataset) bool {
	if !x.anyIs(Lost, moving) {
		return false
	}
	x.abort(ReasonSourceLost, "the source was lost before anything was changed: a failover is decided upon by itself")
	return true
}

// withdrawn ends a run that has changed nothing yet when a person says so.
func (x *step) withdrawn() bool {
	by := x.abortedBy()
	if by == "" {
		return false
	}
	x.abort(ReasonAborted, "aborted by "+by+": nothing was changed")
	return true
}

// abortedBy is who asked for the abort of this run, or of the plan's run that
// ordered it, or empty. Whoever may make
// an approval may abort, the requester included.
func (x *step) abortedBy() string {
	run, words := x.was.Run, x.indexed().approvals
	for _, name := range []string{run.Name, run.Spec.Parent} {
		for _, a := range words[name] {
			if name != "" && a.Spec.Step == v1alpha1.StepAbort && a.Spec.Decision == v1alpha1.DecisionReject && a.Spec.Approver != "" {
				return a.Spec.Approver
			}
		}
	}
	return ""
}

// plannedTarget is the ordered target, or the best, once a switchover to it would
// be short: the source runs, and everything that it will wait for when it closes
// is nearly caught up. The catch-up proof takes the place of the sync set.
func (x *step) plannedTarget(moving []*v1alpha1.Dataset) (Target, string) {
	name := x.was.Run.Spec.To.Cluster
	if x.was.Run.Spec.Action == v1alpha1.ActionFailback {
		name = moving[0].Home()
	}
	if name == "" {
		best, why := choose(x.Snapshot, x.det, x.was.App, moving, x.was.Run.Spec.From, x.was.Run.Spec.To)
		if why != "" {
			return Target{}, why
		}
		name = best.Cluster
	}
	c, why := weigh(x.Snapshot, x.det, x.was.App, moving, name)
	for _, d := range moving {
		if why == "" {
			why = x.unready(x.det, d, name)
		}
	}
	if why != "" {
		return Target{}, fmt.Sprintf("target %s %s: the run waits, nothing is changed; to give up: tripodctl run abort %s", name, why, x.was.Run.Name)
	}
	to, _ := x.Fleet.Cluster(name)
	c.sync, c.Loss = true, v1alpha1.LossEstimate{Message: "none: the target is proven to hold everything before it takes over"}
	c.NeedsApproval = needsApproval(x.was.App, c, to)
	return c.Target, ""
}

// unready says why the write pause of d would be long, or is empty.
func (s *Snapshot) unready(det Detection, d *v1alpha1.Dataset, target string) string {
	source := d.Status.Primary
	o, ok := s.fresh(d, source)
	switch {
	case det.Classes[source] != Healthy:
		return fmt.Sprintf("cannot take over from %s, which is %s", source, orUnknown(det.Classes[source]))
	case !ok || o.Role != v1alpha1.RolePrimary || o.State != v1alpha1.StateRunning || o.Epoch != d.Status.Epoch:
		return fmt.Sprintf("cannot take over from %s, which does not report a running primary of %s at epoch %d", source, key(d), d.Status.Epoch)
	case !slices.Contains(o.Streaming, target):
		return fmt.Sprintf("does not receive the log of %s from %s", key(d), source)
	}
	for _, name := range o.Streaming {
		if r, ok := s.fresh(d, name); ok && r.LagBytes != nil && *r.LagBytes > s.Config.SyncLagBytes {
			return fmt.Sprintf("has to wait: %s is %d bytes behind in %s, and the source closes only when it has everything", name, *r.LagBytes, key(d))
		}
	}
	return ""
}

// startClosing writes the ban. From that commit on the source may be told to
// stop in order; it keeps its role and its epoch.
func (x *step) startClosing(moving []*v1alpha1.Dataset, target string) {
	x.enter(v1alpha1.RunClosing)
	x.status().Timeline.ClosingAt = x.mark()
	for _, d := range moving {
		x.ban(x.now.dataset(d.Name), target)
		x.begin(stepClose, d.Status.Primary, d.Name)
	}
}

// adoptOthers takes in the datasets whose first change was lost together with the journal.
// The proof that each of them needs is still to come.
func (x *step) adoptOthers() {
	st := x.status()
	if len(st.Datasets) == 0 {
		return
	}
	target := st.Datasets[0].Target
	for _, d := range x.moving() {
		if member(d, target) != nil && d.Status.Primary != target {
			st.Datasets = append(st.Datasets, v1alpha1.RunDataset{Name: d.Name, PreviousPrimary: d.Status.Primary, Target: target,
				PreviousEpoch: d.Status.Epoch, Epoch: d.Status.Epoch + 1})
		}
	}
}

func (x *step) ban(d *v1alpha1.Dataset, target string) {
	x.note(NoteDecision, key(d).String(), fmt.Sprintf("%s is closed for writing at epoch %d, so that %s can take over", d.Status.Primary, d.Status.Epoch, target), 0)
	d.Status.Phase = v1alpha1.DatasetClosing
	d.Status.Run = x.was.Run.Name
	d.Status.CatchUp = &v1alpha1.CatchUp{Target: target}
}

// closing waits until every source has closed and every target holds all of it,
// and then commits the epochs, each together with its proof.
func (x *step) closing() {
	if x.status().Timeline.ClosingAt == nil {
		x.status().Timeline.ClosingAt = x.mark()
	}
	if x.turnBack() {
		return
	}
	all := true
	for i := range x.status().Datasets {
		rd := &x.status().Datasets[i]
		d := x.was.dataset(rd.Name)
		switch {
		case x.overtaken(d, rd):
			return
		case d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Epoch == rd.PreviousEpoch:
			x.ban(x.now.dataset(rd.Name), rd.Target) // that write was lost
			all = false
		case d.Status.Phase == v1alpha1.DatasetClosing:
			done := false
			if d.Status.CatchUp.Closed() {
				done = x.caughtUp(d, rd)
			} else if !x.close(d, rd) {
				return
			}
			all = all && done
		}
	}
	if !all {
		return
	}
	x.enter(v1alpha1.RunFencing)
	for _, rd := range x.status().Datasets {
		if x.was.dataset(rd.Name).Status.Phase == v1alpha1.DatasetClosing {
			x.takeRole(x.now.dataset(rd.Name), rd.Target)
		}
		x.begin(stepFence, rd.PreviousPrimary, rd.Name)
	}
}

// close has the source stop in order and commits where its log ends. It is false
// when the run turned back.
func (x *step) close(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	result, done := x.carry(stepClose, Command{Cluster: rd.PreviousPrimary, Dataset: key(d), Verb: VerbClose,
		Epoch: d.Status.Epoch, Primary: d.Status.Primary, Bound: x.pauseLeft()})
	if !done || result.Outcome == Unreachable {
		return true
	}
	if result.Outcome != Done || result.PositionBytes <= 0 {
		x.returnTo(ReasonNotClosed, fmt.Sprintf("%s did not close %s in order: %s %s", rd.PreviousPrimary, key(d), result.Outcome, result.Message))
		return false
	}
	c := x.now.dataset(d.Name).Status.CatchUp
	c.FinalPosition, c.FinalBytes = result.Position, result.PositionBytes
	text := fmt.Sprintf("closed in order; its log ends at %s, timeline %d", result.Position, result.Timeline)
	x.finish(stepClose, rd.PreviousPrimary, d.Name, text)
	x.begin(stepCatchUp, rd.Target, d.Name)
	x.note(NoteResult, rd.PreviousPrimary, text, 0)
	return true
}

// caughtUp asks the target whether it holds all that the closed source had, and
// notes its answer in the dataset for the commit of the epoch.
func (x *step) caughtUp(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	was := d.Status.CatchUp
	if !was.Closed() {
		return false
	}
	result, done := x.carry(stepCatchUp, Command{Cluster: rd.Target, Dataset: key(d), Verb: VerbCatchUp,
		Epoch: d.Status.Epoch, Primary: d.Status.Primary, PositionBytes: was.FinalBytes, Bound: x.pauseLeft()})
	if !done || result.Outcome != Done || result.PositionBytes < was.FinalBytes {
		x.wait("", fmt.Sprintf("waiting for %s to hold %s of %s", rd.Target, was.FinalPosition, key(d)))
		return false
	}
	c := x.now.dataset(d.Name).Status.CatchUp
	c.TargetPosition, c.TargetBytes = result.Position, result.PositionBytes
	text := fmt.Sprintf("holds %s of %s, the source ended at %s: nothing is missing", result.Position, key(d), was.FinalPosition)
	x.finish(stepCatchUp, rd.Target, d.Name, text)
	x.note(NoteResult, rd.Target, text, 0)
	return true
}

// pauseLimit is the longest that the run may keep writes closed.
func (x *step) pauseLimit() time.Duration {
	if s := x.was.Run.Spec.PauseLimitSeconds; s > 0 {
		return time.Duration(s) * time.Second
	}
	return defaultPauseLimit
}

// closedFor is for how long writes have been closed, by the leaders' wall clocks:
// it paces the run and proves nothing. A clock that ran backwards counts as the
// limit.
func (x *step) closedFor() time.Duration {
	at := x.status().Timeline.ClosingAt
	if at == nil {
		return 0
	}
	if passed := x.Now.Sub(at.Time); passed > -time.Second {
		return max(0, passed)
	}
	return x.pauseLimit()
}

// pauseLeft bounds one command of the pause.
func (x *step) pauseLeft() time.Duration {
	return min(x.Config.Directive, max(time.Second, x.pauseLimit()-x.closedFor()))
}

// open lets clients write at every target: it need no longer wait for the source.
// A failover's target never did.
func (x *step) open() bool {
	if !x.planned() {
		return true
	}
	all := true
	for _, rd := range x.status().Datasets {
		d := x.was.dataset(rd.Name)
		if d == nil || d.Status.Epoch > rd.Epoch {
			continue // overtaken: it is another run's to open
		}
		if j := journal(&x.was.Run.Status, stepOpen, rd.Name); j != nil && j.State == v1alpha1.StepSucceeded {
			continue
		}
		all = x.openOne(d, rd.Target, stepOpen, Command{Verb: VerbSetSyncSet}) && all
	}
	if all {
		x.opened()
	}
	return all
}

// openOne carries out one command that lets the primary write. A refusal means
// that something newer was carried out: it is tried again at the newer revision.
func (x *step) openOne(d *v1alpha1.Dataset, cluster, name string, c Command) bool {
	c.Cluster, c.Dataset, c.Epoch, c.Primary = cluster, key(d), d.Status.Epoch, cluster
	c.SyncSet = append([]string{cluster}, d.Status.SyncTarget...)
	result, done := x.carry(name, c)
	switch {
	case done && result.Outcome == Done:
		x.finish(name, cluster, d.Name, "open for writing")
		return true
	case done && result.Outcome == Refused:
		j := journal(x.status(), name, d.Name)
		j.State, j.Message, j.FinishedAt = v1alpha1.StepFailed, result.Message, x.mark()
	}
	return false
}

// opened marks the end of the write pause.
func (x *step) opened() {
	st := x.status()
	if st.Timeline.OpenedAt != nil || st.Timeline.ClosingAt == nil {
		return
	}
	st.Timeline.OpenedAt = x.mark()
	if st.Measured == nil {
		st.Measured = &v1alpha1.Measured{}
	}
	st.Measured.PauseSeconds = seconds(x.closedFor())
	x.note(NoteResult, x.was.Run.Name, "open for writing; the pause was at most "+st.Measured.PauseSeconds+" s", 0)
}
