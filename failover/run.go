package failover

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Steps of a run, as they are named in its journal, in commands and approvals.
const (
	stepApprove = "approve"
	stepClose   = "close"
	stepCatchUp = "catch-up"
	stepFence   = "fence"
	// stepWithhold is a part of a fence: STEP.withhold.CLUSTER.
	stepWithhold = "withhold"
	stepPromote  = "promote"
	stepRoute    = "route"
	stepOpen     = "open"
	stepVerify   = "verify"
	stepResume   = "resume"

	// Steps of a switchover that returns to its source.
	stepFenceBack   = "fence-back"
	stepPromoteBack = "promote-back"
	stepReopen      = "reopen"
)

// State is one application's run with everything that it changes.
type State struct {
	Run      *v1alpha1.RecoveryRun
	App      *v1alpha1.Application
	Datasets []*v1alpha1.Dataset // all datasets of the application
	Services []*v1alpha1.GlobalService
}

func (st State) copy() State {
	out := State{Run: st.Run.DeepCopy(), App: st.App}
	for _, d := range st.Datasets {
		out.Datasets = append(out.Datasets, d.DeepCopy())
	}
	for _, g := range st.Services {
		out.Services = append(out.Services, g.DeepCopy())
	}
	return out
}

func (st State) dataset(name string) *v1alpha1.Dataset {
	for _, d := range st.Datasets {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// step is one call of Next: was is committed, now is what it becomes.
type step struct {
	*Snapshot
	det      Detection
	was, now State
	commands []Command
	hooks    []HookCall
	notes    []Note
}

// Next moves one run on by one step. It returns the state to commit and the
// commands that the committed state st justifies; see the package comment for
// why their order does not matter.
func Next(s *Snapshot, det Detection, st State) (State, []Command, []Note) {
	x := take(s, det, st)
	return x.now, x.commands, x.notes
}

// take is Next with all that it wants, the hooks included.
func take(s *Snapshot, det Detection, st State) *step {
	x := &step{Snapshot: s, det: det, was: st, now: st.copy()}
	if st.Run.Spec.Action == v1alpha1.ActionDrill {
		x.drill()
		return x
	}
	if !x.replaced() && !x.steered() {
		x.phase()
		x.hooked()
	}
	return x
}

// phase does the work of the run's phase.
func (x *step) phase() {
	switch x.status().Phase {
	case v1alpha1.RunPending, v1alpha1.RunPreflight:
		x.preflight()
	case v1alpha1.RunAwaitingApproval:
		x.awaitApproval()
	case v1alpha1.RunClosing:
		x.closing()
	case v1alpha1.RunReturning:
		x.returning()
	case v1alpha1.RunFencing:
		x.fencing()
	case v1alpha1.RunPromoting:
		x.promoting()
	case v1alpha1.RunRouting:
		x.routing()
	case v1alpha1.RunVerifying:
		x.verifying()
	case v1alpha1.RunPaused:
		x.paused()
	}
}

func (x *step) status() *v1alpha1.RecoveryRunStatus { return &x.now.Run.Status }

func (x *step) mark() *metav1.MicroTime {
	t := metav1.NewMicroTime(x.Now)
	return &t
}

func (x *step) note(kind NoteKind, subject, text string, since time.Duration) {
	x.notes = append(x.notes, Note{Run: x.was.Run.Name, Kind: kind, Subject: subject, Text: text, SinceHeard: since})
}

// milestone notes a fact that the measurement rests on.
func (x *step) milestone(mark Mark, kind NoteKind, subject, text string, since time.Duration) {
	x.note(kind, subject, text, since)
	x.notes[len(x.notes)-1].Mark = mark
}

// enter changes the phase; the reason and message of the old one are gone.
func (x *step) enter(phase v1alpha1.RunPhase) {
	st := x.status()
	st.Phase, st.Reason, st.Message, st.ResumePhase = phase, "", "", ""
	x.note(NoteDecision, x.was.Run.Name, "phase "+string(phase), 0)
}

func (x *step) wait(reason, message string) {
	x.status().Reason, x.status().Message = reason, message
}

func (x *step) pause(reason, message string) {
	st := x.status()
	if st.Phase != v1alpha1.RunPaused {
		st.ResumePhase, st.Timeline.PausedAt = st.Phase, x.mark()
		if st.Phase == v1alpha1.RunPending {
			st.ResumePhase = v1alpha1.RunPreflight
		}
		x.note(NoteDecision, x.was.Run.Name, "paused: "+reason+": "+message, 0)
	}
	st.Phase, st.Reason, st.Message = v1alpha1.RunPaused, reason, message
}

func (x *step) abort(reason, message string) {
	x.enter(v1alpha1.RunAborted)
	x.wait(reason, message)
	x.status().Timeline.FinishedAt = x.mark()
	x.note(NoteDecision, x.was.Run.Name, "aborted: "+reason+": "+message, 0)
}

// overtaken aborts the run when another role change has taken its dataset over,
// or the dataset (nil) is gone.
func (x *step) overtaken(d *v1alpha1.Dataset, rd *v1alpha1.RunDataset) bool {
	if d != nil && d.Status.Epoch <= rd.Epoch {
		return false
	}
	x.abort(ReasonOvertaken, fmt.Sprintf("dataset %s was taken over by another role change: nothing more is done", rd.Name))
	return true
}

// journal returns the committed record of a step, or nil.
func journal(st *v1alpha1.RecoveryRunStatus, name, dataset string) *v1alpha1.RunStep {
	for i := range st.Steps {
		if st.Steps[i].Name == name && st.Steps[i].Dataset == dataset {
			return &st.Steps[i]
		}
	}
	return nil
}

// begin journals a step; the next turn, which finds it committed, carries it out.
func (x *step) begin(name, cluster, dataset string) {
	st := x.status()
	if journal(st, name, dataset) == nil {
		st.Steps = append(st.Steps, v1alpha1.RunStep{Name: name, Cluster: cluster, Dataset: dataset,
			Attempt: 1, State: v1alpha1.StepRunning, StartedAt: *x.mark()})
	}
}

// finish ends a step, which may never have been begun in this journal.
func (x *step) finish(name, cluster, dataset, message string) {
	x.begin(name, cluster, dataset)
	j := journal(x.status(), name, dataset)
	if j.State != v1alpha1.StepSucceeded {
		j.State, j.Message, j.FinishedAt = v1alpha1.StepSucceeded, message, x.mark()
	}
}

// A fence that fails is asked again at once this many times, and then less and less
// often, up to slowFence times the usual pause.
const (
	quickFences = 10
	slowFence   = 20
)

// pace is the pause before a failed step is tried again. A fence may fail until a
// person has stopped the copy, and each attempt stays in the evidence.
func (x *step) pace(failed *v1alpha1.RunStep) time.Duration {
	if failed.Name != stepFence && failed.Name != stepFenceBack {
		return x.Config.Retry
	}
	return x.Config.Retry * time.Duration(min(max(1, failed.Attempt-quickFences), slowFence))
}

// carry commands a journalled step and returns its result when there is one. A
// failed attempt is counted in the journal and tried again after a pause.
func (x *step) carry(name string, c Command) (Result, bool) {
	committed := journal(&x.was.Run.Status, name, c.Dataset.Name)
	if committed == nil {
		x.begin(name, c.Cluster, c.Dataset.Name)
		return Result{}, false
	}
	if committed.State == v1alpha1.StepFailed {
		if committed.FinishedAt == nil || x.Now.Sub(committed.FinishedAt.Time) >= x.pace(committed) {
			j := journal(x.status(), name, c.Dataset.Name)
			j.State, j.Attempt, j.FinishedAt = v1alpha1.StepRunning, j.Attempt+1, nil
		}
		return Result{}, false
	}
	c.Run, c.Step, c.Attempt = x.was.Run.Name, name+"."+c.Dataset.Name, committed.Attempt
	c.ID = fmt.Sprintf("%s/%s/%d", c.Run, c.Step, c.Attempt)
	if c.Bound == 0 {
		c.Bound = x.Config.Directive
	}
	c.Revision = revision(x.was.dataset(c.Dataset.Name))
	result, done := x.Results[c.ID]
	if !done {
		x.commands = append(x.commands, c)
		return Result{}, false
	}
	// On the way back there is nothing else to go to: who refuses is asked again. A
	// directive of a leader that is none any more may have overtaken this one.
	back := name == stepFenceBack || name == stepPromoteBack
	if result.Outcome == Failed || result.Outcome == Unreachable || result.Outcome == Refused && back {
		j := journal(x.status(), name, c.Dataset.Name)
		j.State, j.Message, j.FinishedAt = v1alpha1.StepFailed, string(result.Outcome)+": "+result.Message, x.mark()
		x.note(NoteResult, c.Cluster, c.ID+" "+j.Message, 0)
	}
	return result, true
}
