package failover

import (
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Hooks around a whole plan and around its waves are gates, too: what they stand in
// front of is not begun until the journal says that they are through. What runs
// already goes on meanwhile.

// Points of a plan's run.
const (
	beforePlan v1alpha1.HookPoint = "BeforePlan"
	afterPlan  v1alpha1.HookPoint = "AfterPlan"
	beforeWave v1alpha1.HookPoint = "BeforeWave"
	afterWave  v1alpha1.HookPoint = "AfterWave"
)

// beforePlan holds the first wave back: what this step wanted is wanted again.
func (x *planStep) beforePlan() {
	if x.was.Run.Status.Phase == v1alpha1.RunWaves || x.status().Phase != v1alpha1.RunWaves || len(x.was.Run.Status.Waves) > 0 && x.was.Run.Status.Phase == v1alpha1.RunPaused {
		return
	}
	if h, _ := x.due(beforePlan, ""); h != nil {
		x.drop()
		x.create = nil
		x.runHook(h, planHookStep(h, ""))
	}
}

// afterPlan is true when nothing is left to do behind the last application.
func (x *planStep) afterPlan() bool {
	waves := x.was.Run.Status.Waves
	return x.waveHooks(int32(len(waves))) == int32(len(waves)) && x.through(afterPlan, "")
}

// waveHooks are those between the waves up to the open one. It returns the wave up to
// which applications may begin, which is before the first one with a hook to do.
func (x *planStep) waveHooks(open int32) int32 {
	waves := x.was.Run.Status.Waves
	for i := range min(open+1, int32(len(waves))) {
		begun, ready := x.began(i)
		if (begun || ready) && !x.through(beforeWave, waves[i].Name) {
			return i - 1
		}
		if begun && i < open && !x.through(afterWave, waves[i].Name) {
			return i
		}
	}
	return open
}

// began says whether an application of a wave has a run, or could have one now.
func (x *planStep) began(wave int32) (begun, ready bool) {
	for i, s := range x.states {
		if x.was.Run.Status.Applications[i].Wave == wave {
			begun, ready = begun || s.run != "", ready || s.ready
		}
	}
	return begun, ready
}

// through is true when every hook of a point is; else it does the first that is not.
func (x *planStep) through(point v1alpha1.HookPoint, wave string) bool {
	h, name := x.due(point, wave)
	if h == nil {
		return true
	}
	if len(x.hooks) == 0 && x.status().Phase == v1alpha1.RunWaves { // one at a time
		x.runHook(h, name)
	}
	return false
}

// due is the first hook of a point that is not through, with the name of its step.
func (x *planStep) due(point v1alpha1.HookPoint, wave string) (*v1alpha1.PlanHook, string) {
	plan := x.planOf(x.was.Run)
	if plan == nil {
		return nil, ""
	}
	for i := range plan.Spec.Hooks {
		h := &plan.Spec.Hooks[i]
		if h.At == point && (h.Wave == "" || h.Wave == wave) && !x.hookPassed(h, planHookStep(h, wave)) {
			return h, planHookStep(h, wave)
		}
	}
	return nil, ""
}

// planHookStep names a hook's step: one that is done for several waves has one each.
func planHookStep(h *v1alpha1.PlanHook, wave string) string {
	if wave == "" {
		return hookStep + h.Name
	}
	return hookStep + h.Name + "." + wave
}

// pastHook has a run that a hook has stopped go on, and the hook tried again, when a
// person says so.
func (x *planStep) pastHook() {
	for _, a := range x.orders(v1alpha1.StepResume) {
		st := x.status()
		if st.Phase != v1alpha1.RunPaused || st.Reason != ReasonHookFailed {
			return
		}
		if at := st.Timeline.PausedAt; at == nil || !a.CreationTimestamp.Time.Before(at.Truncate(time.Second)) {
			x.follow(a)
			x.resume("ordered by " + a.Spec.Approver)
		}
	}
}
