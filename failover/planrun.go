package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A plan's run has no dataset of its own: it orders applications, makes a run for
// each when its turn comes, and follows these. Their names are made of its own,
// so that a leader that died before it journalled them has made the same.

// planStep is one call of NextPlan.
type planStep struct {
	*step
	states []state // of the applications, as their runs say
	create []*v1alpha1.RecoveryRun
}

// NextPlan moves a plan's run on by one step. It returns the run to commit and
// the runs to create; these are justified by what is committed alone: an order
// or an approval that is lost with its leader would otherwise leave runs behind
// that the next one does not know of.
func NextPlan(s *Snapshot, det Detection, run *v1alpha1.RecoveryRun) (*v1alpha1.RecoveryRun, []*v1alpha1.RecoveryRun, []Note) {
	x := takePlan(s, det, run)
	return x.now.Run, x.create, x.notes
}

// takePlan is NextPlan with all that it wants, the hooks included.
func takePlan(s *Snapshot, det Detection, run *v1alpha1.RecoveryRun) *planStep {
	st := State{Run: run}
	x := &planStep{step: &step{Snapshot: s, det: det, was: st, now: st.copy()}}
	switch run.Status.Phase {
	case v1alpha1.RunPending, v1alpha1.RunPreflight:
		x.preflight()
	case v1alpha1.RunAwaitingApproval:
		x.awaitApproval()
	case v1alpha1.RunWaves, v1alpha1.RunPaused:
		x.waves()
	}
	x.beforePlan()
	return x
}

// preflight plans the order, with what each application would lose, or refuses.
func (x *planStep) preflight() {
	run := x.was.Run
	if x.withdrawn() {
		return
	}
	book, no := x.runbookOf(run)
	if no != nil {
		x.abort(no.reason, no.message+": nothing was changed")
		return
	}
	apps := x.chosen(x.det, run, book.applications)
	if len(apps) == 0 {
		x.abort(ReasonNothingToDo, x.nothing())
		return
	}
	st := x.status()
	if st.Applications, no = book.order(x.graph(), apps); no != nil {
		x.abort(no.reason, no.message+": nothing was changed")
		return
	}
	if run.Spec.Action == v1alpha1.ActionDrill {
		for i := range st.Applications { // a drill moves nothing that another could wait for
			st.Applications[i].After = nil
		}
	}
	st.Waves, st.Automatic = book.waves, run.Spec.Requester == ""
	for i := range st.Applications {
		x.assess(&st.Applications[i], false)
	}
	st.Timeline.DetectedAt = x.mark()
	x.note(NoteDecision, run.Name, fmt.Sprintf("%s of %d applications from %s, in %d waves: %s", run.Spec.Action, len(apps), placeName(run.Spec.From),
		len(st.Waves), names(st.Applications, func(*v1alpha1.RunApplication) bool { return true })), 0)
	x.restrain()
	if x.ask() && run.Spec.Requester != "" {
		x.enter(v1alpha1.RunAwaitingApproval)
		x.wait(ReasonApproval, x.question())
		x.begin(stepApprove, "", "")
		return
	}
	x.enter(v1alpha1.RunWaves)
}

// nothing says why the run of a plan has nothing to do.
func (x *planStep) nothing() string {
	spec := x.was.Run.Spec
	if spec.Action == v1alpha1.ActionFailback {
		return fmt.Sprintf("every application of %s that has its primary in %s is at home: nothing was changed", orAll(spec.Plan), placeName(spec.From))
	}
	return fmt.Sprintf("no application of %s has a primary in %s: nothing was changed", orAll(spec.Plan), placeName(spec.From))
}

func orAll(plan string) string {
	if plan == "" {
		return "all"
	}
	return "plan " + plan
}

func names(all []v1alpha1.RunApplication, of func(*v1alpha1.RunApplication) bool) string {
	var out []string
	for i := range all {
		if of(&all[i]) {
			out = append(out, all[i].Key())
		}
	}
	return strings.Join(out, ", ")
}

// assess journals what is expected of one application: its target, whether a
// person must agree, and the loss. What a person has declined stays so until a
// person has it tried again.
func (x *planStep) assess(a *v1alpha1.RunApplication, again bool) {
	run := x.was.Run
	app := x.applicationNamed(a)
	a.Target, a.NeedsApproval, a.Loss, a.Epoch = "", "", nil, 0
	if app == nil {
		return
	}
	moving := x.movedBy(run, x.datasetsOf(app))
	if len(moving) == 0 || run.Spec.Action == v1alpha1.ActionDrill {
		return
	}
	a.Epoch = nextEpoch(moving)
	if run.Spec.Requester == "" && !again {
		_, why := x.runName(app, moving)
		if why == "" {
			why = x.declined(app, moving)
		}
		if why != "" {
			a.State, a.Reason, a.Message = v1alpha1.ApplicationFailed, ReasonRejected, why
			return
		}
	}
	target, why := x.expected(app, moving)
	if why != "" {
		return // its own run waits for one
	}
	to, _ := x.Fleet.Cluster(target.Cluster)
	if x.planned() {
		target.sync, target.Loss = true, v1alpha1.LossEstimate{}
		target.NeedsApproval = needsApproval(app, target, to)
	}
	if run.Spec.Requester == "" && x.manual(app, moving[0].Status.Primary, target.Cluster) {
		a.State, a.Reason = v1alpha1.ApplicationFailed, ReasonManual
		a.Message = fmt.Sprintf("its policy is Manual: tripodctl failover %s --to %s", a.Key(), target.Cluster)
		return
	}
	a.Target, a.NeedsApproval = target.Cluster, target.NeedsApproval
	if target.NeedsApproval != "" {
		a.Loss = shown(target.Target)
	}
}

// expected is the target that the application's own run will take, as things are.
func (x *planStep) expected(app *v1alpha1.Application, moving []*v1alpha1.Dataset) (candidate, string) {
	if x.was.Run.Spec.Action == v1alpha1.ActionFailback {
		return weigh(x.Snapshot, x.det, app, moving, moving[0].Home())
	}
	return choose(x.Snapshot, x.det, app, moving, x.was.Run.Spec.From, x.was.Run.Spec.To)
}

func (x *planStep) applicationNamed(a *v1alpha1.RunApplication) *v1alpha1.Application {
	return x.application(entryKey(a))
}

// manual is true when the policy leaves the move to a person.
func (s *Snapshot) manual(app *v1alpha1.Application, from, to string) bool {
	policy := app.Spec.Failover.AcrossRegions
	if s.sameRegion(from, to) {
		policy = app.Spec.Failover.WithinRegion
	}
	return policy == v1alpha1.FailoverManual
}

// ask sums up the loss and is true when somebody must agree to it: one round for
// all applications that need it.
func (x *planStep) ask() bool {
	st := x.status()
	var loss v1alpha1.LossEstimate
	var losers []string
	asked := false
	for i := range st.Applications {
		a := &st.Applications[i]
		if a.NeedsApproval == "" || a.State == v1alpha1.ApplicationFailed {
			continue
		}
		asked = true
		if a.Loss != nil && a.Loss.Possible {
			loss.Possible = true
			loss.Bytes += a.Loss.Bytes
			loss.Seconds = max(loss.Seconds, a.Loss.Seconds)
			if a.Loss.Extent != "" {
				loss.Extent = a.Loss.Extent
			}
			losers = append(losers, fmt.Sprintf("%s %s and %d bytes", a.Key(), extent(a.Loss), a.Loss.Bytes))
		}
	}
	if !asked {
		return false
	}
	if loss.Possible {
		loss.Message = fmt.Sprintf("%d applications may lose writes, up to %s each and %d bytes together: %s", len(losers), extent(&loss), loss.Bytes, some(losers))
	}
	if st.Loss == nil || loss.Seconds > st.Loss.Seconds {
		st.Loss = &loss
	}
	if st.Timeline.AwaitingSince == nil {
		st.Timeline.AwaitingSince = x.mark()
	}
	return true
}

// some joins texts, the first ten of them.
func some(texts []string) string {
	if n := len(texts); n > 10 {
		return strings.Join(texts[:10], "; ") + fmt.Sprintf("; and %d more, see status.applications", n-10)
	}
	return strings.Join(texts, "; ")
}

func (x *planStep) question() string {
	st := x.status()
	reasons := map[string]int{}
	for i := range st.Applications {
		if a := &st.Applications[i]; a.NeedsApproval != "" && a.State != v1alpha1.ApplicationFailed {
			reasons[a.NeedsApproval]++
		}
	}
	var texts []string
	for _, reason := range sortedKeys(reasons) {
		texts = append(texts, fmt.Sprintf("%d because %s", reasons[reason], reason))
	}
	text := "applications need an approval: " + some(texts)
	if st.Loss != nil && st.Loss.Possible {
		text += "; " + st.Loss.Message
	}
	return fmt.Sprintf("%s. Approve all of them with: tripodctl approve %s", text, x.was.Run.Name)
}

// awaitApproval waits for people before anything of an ordered run is begun.
func (x *planStep) awaitApproval() {
	if x.withdrawn() || x.steered() {
		return
	}
	x.grow()
	switch approved := x.round(); {
	case approved.Rejected != "":
		x.abort(ReasonRejected, "rejected by "+approved.Rejected)
	case approved.Enough:
		x.enter(v1alpha1.RunWaves)
	}
}

// grow shows the loss anew when more is lost by now than was shown.
func (x *planStep) grow() {
	st := x.status()
	before := st.Loss.DeepCopy()
	for i := range st.Applications {
		a := &st.Applications[i]
		app := x.applicationNamed(a)
		if a.Loss == nil || !a.Loss.Possible || app == nil {
			continue
		}
		moving := x.movedBy(x.was.Run, x.datasetsOf(app))
		if len(moving) == 0 {
			continue
		}
		if c, why := weigh(x.Snapshot, x.det, app, moving, a.Target); why == "" && c.soFar > a.Loss.Seconds {
			a.Loss = shown(c.Target)
		}
	}
	if x.ask(); st.Loss.Seconds > before.Seconds {
		x.wait(ReasonApproval, x.question())
		return
	}
	st.Applications = x.was.Run.DeepCopy().Status.Applications
}

// round judges the one round of approvals, and journals when it is over.
func (x *planStep) round() Approved {
	run, st := x.was.Run, x.status()
	since := time.Time{}
	if st.Timeline.AwaitingSince != nil {
		since = st.Timeline.AwaitingSince.Time
	}
	approved := CountApprovals(x.Snapshot, x.policyOf(run), run.Name, stepApprove, run.Spec.Requester, since, st.Loss)
	if approved.Enough {
		for _, by := range approved.By {
			x.note(NoteApproval, by, fmt.Sprintf("approved for all applications that need it; accepts the loss that was shown: %+v", *st.Loss), 0)
		}
		st.Timeline.ApprovedAt = x.mark()
		x.finish(stepApprove, "", "", "approved by "+strings.Join(approved.By, ", "))
	}
	return approved
}

// covered is true when the approval of the plan's run that ordered this one
// covers it: the same target, no more loss than people were shown, and no role
// change since, which they knew nothing of. It then
// journals their word as its own.
func (x *step) covered(target Target, moving []*v1alpha1.Dataset) bool {
	parent := x.run(x.was.Run.Spec.Parent)
	if parent == nil || parent.Status.Timeline.ApprovedAt == nil {
		return false
	}
	i := slices.IndexFunc(parent.Status.Applications, func(a v1alpha1.RunApplication) bool {
		return a.Namespace == x.was.App.Namespace && a.Name == x.was.App.Name
	})
	if i < 0 {
		return false
	}
	a, loss := parent.Status.Applications[i], v1alpha1.LossEstimate{}
	if a.Loss != nil {
		loss = *a.Loss
	}
	more := target.Loss.Possible && (!loss.Possible || target.soFar > parent.Status.Loss.Seconds)
	if a.NeedsApproval == "" || a.Target != target.Cluster || a.Epoch != nextEpoch(moving) || more {
		return false
	}
	st := x.status()
	st.Loss, st.Timeline.ApprovedAt = &loss, x.mark()
	x.finish(stepApprove, "", "", "approved with run "+parent.Name)
	x.note(NoteApproval, parent.Name, fmt.Sprintf("approved with run %s; accepts the loss that was shown: %+v", parent.Name, loss), 0)
	return true
}
