package failover

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// ReasonHookFailed is the reason of a run that a hook has stopped.
const ReasonHookFailed = "HookFailed"

// HookCall asks for one attempt of one hook. ID, RUN/hook.NAME/ATTEMPT, is its
// idempotency key: a leader that takes over asks for the same attempt again.
type HookCall struct {
	ID          string
	Hook        v1alpha1.PlanHook
	Run         *v1alpha1.RecoveryRun
	Application v1alpha1.ApplicationReference
	Attempt     int32
	Bound       time.Duration
}

const hookStep = "hook."

// order of a run's phases; Close is a planned move's alone.
var phaseNames = []struct {
	phase v1alpha1.RunPhase
	name  string
}{
	{v1alpha1.RunClosing, "Close"}, {v1alpha1.RunFencing, "Fence"}, {v1alpha1.RunPromoting, "Promote"},
	{v1alpha1.RunRouting, "Route"}, {v1alpha1.RunVerifying, "Verify"}, {v1alpha1.RunCompleted, ""},
}

// points are passed when a run goes from one phase to another: none when it does
// not go forward.
func points(from, to v1alpha1.RunPhase) []v1alpha1.HookPoint {
	at := func(p v1alpha1.RunPhase) int {
		for i, n := range phaseNames {
			if n.phase == p {
				return i
			}
		}
		return -1
	}
	var out []v1alpha1.HookPoint
	i, j := at(from), at(to)
	switch {
	case j < 0 || i >= j:
		return nil
	case i < 0 && (from == v1alpha1.RunPending || from == v1alpha1.RunPreflight || from == v1alpha1.RunAwaitingApproval):
		return []v1alpha1.HookPoint{"BeforeRun", v1alpha1.HookPoint("Before" + phaseNames[j].name)}
	case i < 0:
		return nil
	}
	for ; i < j; i++ {
		out = append(out, v1alpha1.HookPoint("After"+phaseNames[i].name))
		if next := phaseNames[i+1].name; next != "" {
			out = append(out, v1alpha1.HookPoint("Before"+next))
		} else {
			out = append(out, "AfterRun")
		}
	}
	return out
}

// hooked holds a change of phase back until every hook between the two phases has
// run: what this step wanted is dropped and wanted again in the next turn. A run
// whose datasets were changed already by a leader that could not journal it has
// passed the hooks before that.
//
// A run that pauses in a later phase than it was in goes on from there, so its hooks
// come first, too.
func (x *step) hooked() {
	to := x.status().Phase
	if to == v1alpha1.RunPaused {
		to = x.status().ResumePhase
	}
	if h := x.dueHook(to); h != nil {
		x.drop()
		x.runHook(h, hookStep+h.Name)
	}
}

// dueHook is the next hook that has to run before the run may be in that phase, or nil.
func (x *step) dueHook(to v1alpha1.RunPhase) *v1alpha1.PlanHook {
	passed := points(x.was.Run.Status.Phase, to)
	if len(passed) == 0 || passed[0] == "BeforeRun" && x.changed() {
		return nil
	}
	plan := x.planOf(x.was.Run)
	if plan == nil {
		return nil
	}
	for _, point := range passed {
		for i := range plan.Spec.Hooks {
			if h := &plan.Spec.Hooks[i]; h.At == point && x.concerns(h) && !x.hookPassed(h, hookStep+h.Name) {
				return h
			}
		}
	}
	return nil
}

// drop takes back what this step wanted.
func (x *step) drop() {
	x.now, x.commands, x.notes = x.was.copy(), nil, nil
}

// concerns is true for a hook of this application. A selector that cannot be read
// selects nobody.
func (x *step) concerns(h *v1alpha1.PlanHook) bool {
	if h.Applications == nil {
		return true
	}
	m, err := newMatcher(*h.Applications)
	return err == nil && m.selects(x.was.App)
}

func (x *step) hookPassed(h *v1alpha1.PlanHook, name string) bool {
	j := journal(&x.was.Run.Status, name, "")
	return j != nil && (j.State == v1alpha1.StepSucceeded || j.State == v1alpha1.StepFailed && h.OnFailure == v1alpha1.HookContinue && j.Attempt >= h.Attempts)
}

// runHook asks for a hook, or follows its result. name is that of its step.
func (x *step) runHook(h *v1alpha1.PlanHook, name string) {
	committed := journal(&x.was.Run.Status, name, "")
	if committed == nil {
		x.begin(name, "", "")
		x.wait("", fmt.Sprintf("hook %s runs (%s)", h.Name, h.At))
		return
	}
	j := journal(x.status(), name, "")
	if committed.State == v1alpha1.StepFailed {
		if committed.FinishedAt == nil || x.Now.Sub(committed.FinishedAt.Time) >= x.Config.Retry {
			j.State, j.Attempt, j.FinishedAt = v1alpha1.StepRunning, j.Attempt+1, nil
		}
		return
	}
	call := HookCall{ID: fmt.Sprintf("%s/%s/%d", x.was.Run.Name, name, committed.Attempt), Hook: *h, Run: x.was.Run,
		Application: x.was.Run.Spec.Application, Attempt: committed.Attempt, Bound: time.Duration(max(1, h.TimeoutSeconds)) * time.Second}
	result, done := x.Results[call.ID]
	switch {
	case !done:
		x.hooks = append(x.hooks, call)
	case result.Outcome == Done:
		x.finish(name, "", "", result.Message)
		x.note(NoteResult, h.Name, fmt.Sprintf("%s attempt %d (%s): %s", call.ID, committed.Attempt, h.At, result.Message), 0)
		x.wait("", "")
	default:
		j.State, j.Message, j.FinishedAt = v1alpha1.StepFailed, result.Message, x.mark()
		x.note(NoteResult, h.Name, fmt.Sprintf("%s failed (%s): %s", call.ID, h.At, result.Message), 0)
		if j.Attempt >= max(1, h.Attempts) {
			x.hookFailed(h, result.Message)
		}
	}
}

// hookFailed does what the plan says after the last attempt.
func (x *step) hookFailed(h *v1alpha1.PlanHook, why string) {
	text := fmt.Sprintf("hook %s (%s) failed after %d attempts: %s", h.Name, h.At, max(1, h.Attempts), why)
	before := slices.Contains([]v1alpha1.RunPhase{v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunAwaitingApproval}, x.was.Run.Status.Phase)
	closed := x.planned() && slices.Contains([]v1alpha1.RunPhase{v1alpha1.RunClosing, v1alpha1.RunFencing, v1alpha1.RunPromoting}, x.was.Run.Status.Phase)
	switch {
	case h.OnFailure == v1alpha1.HookContinue:
		x.wait("", text+": the run goes on")
	case h.OnFailure == v1alpha1.HookAbort && before:
		x.abort(ReasonHookFailed, text+": nothing was changed")
	case closed:
		x.returnTo(ReasonHookFailed, text)
	default:
		x.pause(ReasonHookFailed, text+x.resumeHint())
	}
}

// hooksAgain has the hook that stopped the run tried again when it is resumed.
func (x *step) hooksAgain() {
	for i := range x.status().Steps {
		if j := &x.status().Steps[i]; len(j.Name) > len(hookStep) && j.Name[:len(hookStep)] == hookStep && j.State == v1alpha1.StepFailed {
			j.State, j.FinishedAt = v1alpha1.StepRunning, nil // resume counts the attempt
		}
	}
}
