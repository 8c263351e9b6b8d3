package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// far is the other side of the hooks. It knows an attempt by its idempotency key,
// and does it once however often it is asked.
type far struct {
	begun map[string]time.Duration // when an attempt is through, -1 if never
	fails map[string]bool          // attempts that end badly
	// through are the hooks, RUN/hook.NAME, that it has done.
	through map[string]bool
	// failed are the attempts of a hook that a leader has taken for failed.
	failed map[string]map[string]bool
}

func newFar() far {
	return far{begun: map[string]time.Duration{}, fails: map[string]bool{}, through: map[string]bool{}, failed: map[string]map[string]bool{}}
}

var hookPoints = []v1alpha1.HookPoint{"BeforeRun", "BeforeClose", "AfterClose", "BeforeFence", "AfterFence", "BeforePromote", "AfterPromote",
	"BeforeRoute", "AfterRoute", "BeforeVerify", "AfterVerify", "AfterRun"}

// planPoints are around a whole plan and its waves.
var planPoints = []v1alpha1.HookPoint{"BeforePlan", "AfterPlan", "BeforeWave", "AfterWave"}

func (w *world) seedHooks() []v1alpha1.PlanHook {
	var out []v1alpha1.PlanHook
	for i := range w.fourth.IntN(4) {
		h := v1alpha1.PlanHook{Name: fmt.Sprintf("hook-%d", i), At: hookPoints[w.fourth.IntN(len(hookPoints))], HTTP: &v1alpha1.HTTPHook{URL: "http://far"},
			TimeoutSeconds: int32(1 + w.fourth.IntN(3)), Attempts: int32(1 + w.fourth.IntN(2)),
			OnFailure: []v1alpha1.HookFailure{v1alpha1.HookPause, v1alpha1.HookContinue, v1alpha1.HookAbort}[w.fourth.IntN(3)]}
		if w.fourth.IntN(4) == 0 {
			h.Applications = &v1alpha1.ApplicationSelector{Names: []v1alpha1.ApplicationReference{reference(w.fourth.IntN(len(w.lanes)))}}
		}
		if w.fourth.IntN(4) == 0 {
			h.At = planPoints[w.fourth.IntN(len(planPoints))]
		}
		out = append(out, h)
	}
	return out
}

// hook is the runner of hooks of a leader.
func (m *member) hook(c failover.HookCall) {
	if _, answered := m.results[c.ID]; answered || m.inWork[c.ID] {
		return
	}
	m.inWork[c.ID] = true
	m.w.trace("%s calls hook %s at %s", places[m.id], c.ID, c.Hook.At)
	answer := m.answers(c.ID)
	ended := func(r failover.Result) {
		m.local(func() {
			if r.Outcome != failover.Done {
				m.w.far.fail(c)
				if m.w.opt.Bug == HookFailureIgnored {
					r.Outcome = failover.Done
				}
			}
			answer(r)
		})
	}
	m.w.after(m.clock.in(c.Bound), func() { ended(failover.Result{Outcome: failover.Failed, Message: "not done in time"}) })
	m.w.after(m.w.between(2*time.Millisecond, 40*time.Millisecond), func() {
		m.w.far.call(m.w, c, func(ok bool) {
			r := failover.Result{Outcome: failover.Done, Message: "204"}
			if !ok {
				r = failover.Result{Outcome: failover.Failed, Message: "503"}
			}
			ended(r)
		})
	})
}

func hookKey(run, hook string) string { return run + "/hook." + hook }

// keyOf is the hook of an attempt, whichever it is.
func keyOf(c failover.HookCall) string { return c.ID[:strings.LastIndex(c.ID, "/")] }

func (f *far) fail(c failover.HookCall) {
	name := keyOf(c)
	if f.failed[name] == nil {
		f.failed[name] = map[string]bool{}
	}
	f.failed[name][c.ID] = true
}

// call does an attempt: well, badly, or without ever answering. All of them are
// done well when everything has healed.
func (f *far) call(w *world, c failover.HookCall, answer func(ok bool)) {
	ends, known := f.begun[c.ID]
	if !known {
		ends = w.now + w.between(20*time.Millisecond, 2500*time.Millisecond)
		if healed := w.now > healAt; !healed && w.fourth.IntN(5) == 0 {
			f.fails[c.ID] = true
		} else if !healed && w.fourth.IntN(8) == 0 {
			ends = -1
		}
		f.begun[c.ID] = ends
	}
	if ends < 0 {
		return
	}
	w.after(ends-w.now, func() {
		if !f.fails[c.ID] {
			f.through[keyOf(c)] = true
			w.result.Hooks++
		}
		answer(!f.fails[c.ID])
	})
}

// passed is true when nothing speaks against going past a hook.
func (f *far) passed(name string, h *v1alpha1.PlanHook) bool {
	return f.through[name] || h.OnFailure == v1alpha1.HookContinue && len(f.failed[name]) >= int(h.Attempts)
}

// gate judges that a run has passed the hooks of points before it does something.
func (c *checker) gate(run, what string, points ...v1alpha1.HookPoint) {
	r, plan := c.w.truth.runs[run], c.w.truth.plan
	if r == nil || plan == nil || r.Spec.Plan != plan.Name {
		return
	}
	for i := range plan.Spec.Hooks {
		h := &plan.Spec.Hooks[i]
		concerned := h.Applications == nil || slices.Contains(h.Applications.Names, reference(c.lane.id))
		if concerned && slices.Contains(points, h.At) && !c.w.far.passed(hookKey(run, h.Name), h) {
			c.violate("hook", "%s: %s, and its hook %s at %s is not through", run, what, h.Name, h.At)
		}
	}
}

// gates judges a committed change of the role against the hooks of its run.
func (c *checker) gates(a, b v1alpha1.DatasetStatus) {
	r := c.w.truth.runs[b.Run]
	if b.Phase == v1alpha1.DatasetSteady {
		r = c.w.truth.runs[a.Run]
	}
	if r == nil {
		return
	}
	change := fmt.Sprintf("%q becomes %q", a.Phase, b.Phase)
	switch [2]v1alpha1.DatasetPhase{a.Phase, b.Phase} {
	case [2]v1alpha1.DatasetPhase{v1alpha1.DatasetSteady, v1alpha1.DatasetFencing}:
		c.gate(r.Name, change, "BeforeRun", "BeforeFence")
	case [2]v1alpha1.DatasetPhase{v1alpha1.DatasetSteady, v1alpha1.DatasetClosing}:
		c.gate(r.Name, change, "BeforeRun", "BeforeClose")
	case [2]v1alpha1.DatasetPhase{v1alpha1.DatasetClosing, v1alpha1.DatasetFencing}:
		c.gate(r.Name, change, "AfterClose", "BeforeFence")
	case [2]v1alpha1.DatasetPhase{v1alpha1.DatasetPromoting, v1alpha1.DatasetSteady}:
		if b.Primary != r.Spec.From.Cluster && (len(r.Status.Datasets) == 0 || b.Primary == r.Status.Datasets[0].Target) {
			c.gate(r.Name, change, "AfterPromote", "BeforeRoute")
		}
	}
}

// stoppedByHook: a hook ends a run only where nothing was changed.
func (c *checker) stoppedByHook(n *v1alpha1.RecoveryRun) {
	if n.Status.Reason == failover.ReasonHookFailed && !n.Spec.Action.Planned() && c.took[n.Name] {
		c.violate("hook", "run %s is aborted by a hook after it has changed the role: %s", n.Name, n.Status.Message)
	}
}
