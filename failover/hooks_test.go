package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// hooking answers the calls of hooks as a test says and remembers their order.
type hooking struct {
	*world
	calls  []string
	answer func(HookCall) (Result, bool)
}

func newHooking(t *testing.T, hooks ...v1alpha1.PlanHook) *hooking {
	h := &hooking{world: newPlanWorld(t)}
	h.add("a")
	for i := range hooks {
		hooks[i].HTTP, hooks[i].TimeoutSeconds = &v1alpha1.HTTPHook{URL: "http://x"}, 5
	}
	h.writePlan("p", v1alpha1.RecoveryPlanSpec{Hooks: hooks})
	h.answer = func(HookCall) (Result, bool) { return Result{Outcome: Done}, true }
	return h
}

func (h *hooking) moves(action v1alpha1.Action) {
	h.start("one", v1alpha1.RecoveryRunSpec{Plan: "p", Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "a"}, Action: action,
		From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: "north-2"}})
}

func (h *hooking) until(phase v1alpha1.RunPhase) *v1alpha1.RecoveryRun {
	h.t.Helper()
	for range 300 {
		e := h.turn()
		for _, c := range e.Hooks {
			h.calls = append(h.calls, string(c.Hook.At)+" "+c.ID+" in "+string(h.dbOf("a").Status.Phase))
			if r, ok := h.answer(c); ok {
				h.s.Results[c.ID] = r
			}
		}
		if r := h.s.run("one"); r.Status.Phase == phase {
			return r
		}
		h.pass(100 * time.Millisecond)
		if h.dbOf("a").Status.Phase == v1alpha1.DatasetSteady {
			h.observe(h.dbOf("a"))
		}
	}
	r := h.s.run("one")
	h.t.Fatalf("the run did not become %s but %s %s %s; hooks %v", phase, r.Status.Phase, r.Status.Reason, r.Status.Message, h.calls)
	return nil
}

func TestHooksRunBeforeAndAfterEveryPhaseInTheirOrder(t *testing.T) {
	h := newHooking(t, v1alpha1.PlanHook{Name: "end", At: "AfterRun"}, v1alpha1.PlanHook{Name: "fenced", At: "AfterFence"},
		v1alpha1.PlanHook{Name: "first", At: "BeforeRun"}, v1alpha1.PlanHook{Name: "promote", At: "BeforePromote"}, v1alpha1.PlanHook{Name: "promote-2", At: "BeforePromote"},
		v1alpha1.PlanHook{Name: "route", At: "BeforeRoute"}, v1alpha1.PlanHook{Name: "other", At: "BeforeRun", Applications: &v1alpha1.ApplicationSelector{Names: named("b").Names}})
	promoted := 0
	h.answer = func(c HookCall) (Result, bool) {
		if c.Hook.At == "BeforePromote" {
			promoted += h.count(VerbPromote)
		}
		return Result{Outcome: Done}, true
	}
	h.moves(v1alpha1.ActionFailover)
	h.until(v1alpha1.RunCompleted)
	want := []string{"BeforeRun one/hook.first/1 in Steady", "AfterFence one/hook.fenced/1 in Promoting", "BeforePromote one/hook.promote/1 in Promoting",
		"BeforePromote one/hook.promote-2/1 in Promoting", "BeforeRoute one/hook.route/1 in Promoting", "AfterRun one/hook.end/1 in Steady"}
	if !slices.Equal(h.calls, want) {
		t.Errorf("hooks\n%s\nwant\n%s", strings.Join(h.calls, "\n"), strings.Join(want, "\n"))
	}
	if promoted > 0 {
		t.Error("a promotion was commanded before the hooks in front of it had run")
	}
}

func TestAHookThatFailsDoesWhatThePlanSays(t *testing.T) {
	fails := func(HookCall) (Result, bool) { return Result{Outcome: Failed, Message: "503"}, true }
	for name, tc := range map[string]struct {
		hook  v1alpha1.PlanHook
		act   v1alpha1.Action
		phase v1alpha1.RunPhase
		calls int
		at    string
	}{
		"Continue goes on after its attempts":      {v1alpha1.PlanHook{At: "BeforeFence", Attempts: 3, OnFailure: v1alpha1.HookContinue}, v1alpha1.ActionFailover, v1alpha1.RunCompleted, 3, "north-2"},
		"Pause before anything was changed":        {v1alpha1.PlanHook{At: "BeforeRun", OnFailure: v1alpha1.HookPause}, v1alpha1.ActionFailover, v1alpha1.RunPaused, 1, "north-1"},
		"Abort before anything was changed":        {v1alpha1.PlanHook{At: "BeforeFence", OnFailure: v1alpha1.HookAbort}, v1alpha1.ActionFailover, v1alpha1.RunAborted, 1, "north-1"},
		"Abort of a failover that has fenced":      {v1alpha1.PlanHook{At: "BeforePromote", OnFailure: v1alpha1.HookAbort}, v1alpha1.ActionFailover, v1alpha1.RunPaused, 1, "north-2"},
		"Pause while a switchover has writes shut": {v1alpha1.PlanHook{At: "AfterClose", OnFailure: v1alpha1.HookPause}, v1alpha1.ActionSwitchover, v1alpha1.RunAborted, 1, "north-1"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.hook.Name = "tell"
			h := newHooking(t, tc.hook)
			h.world.answer = func(Command) (Result, bool) {
				return Result{Outcome: Done, Position: "0/3000000", PositionBytes: 0x3000000, Timeline: 2}, true
			}
			h.answer = fails
			h.moves(tc.act)
			run := h.until(tc.phase)
			if len(h.calls) != tc.calls || h.dbOf("a").Status.Primary != tc.at {
				t.Errorf("calls %v, primary %s", h.calls, h.dbOf("a").Status.Primary)
			}
			if tc.phase != v1alpha1.RunCompleted && (run.Status.Reason != ReasonHookFailed || !strings.Contains(run.Status.Message, "hook tell (") || !strings.Contains(run.Status.Message, "503")) {
				t.Errorf("%s: %s", run.Status.Reason, run.Status.Message)
			}
			if run.Status.Phase != v1alpha1.RunPaused {
				return
			}
			h.answer = func(HookCall) (Result, bool) { return Result{Outcome: Done}, true }
			h.s.Now = h.s.Now.Add(2 * time.Second)
			h.say("one", v1alpha1.StepResume, v1alpha1.DecisionApprove, "bob")
			h.until(v1alpha1.RunCompleted)
			if !strings.Contains(strings.Join(h.calls, " "), "one/hook.tell/2") {
				t.Errorf("the hook was not tried again under another key: %v", h.calls)
			}
		})
	}
}

func TestAHookThatDoesNotAnswerReturnsASwitchoverWithinItsLimit(t *testing.T) {
	h := newHooking(t, v1alpha1.PlanHook{Name: "slow", At: "BeforePromote"})
	h.world.answer = func(Command) (Result, bool) {
		return Result{Outcome: Done, Position: "0/3000000", PositionBytes: 0x3000000, Timeline: 2}, true
	}
	h.answer = func(HookCall) (Result, bool) { return Result{}, false }
	h.moves(v1alpha1.ActionSwitchover)
	run := h.until(v1alpha1.RunAborted)
	if run.Status.Reason != ReasonPauseLimit || h.dbOf("a").Status.Primary != "north-1" {
		t.Errorf("%s %s, primary %s", run.Status.Reason, run.Status.Message, h.dbOf("a").Status.Primary)
	}
}

// The target is lost while hooks between the fence and the promotion run.
func TestALostTargetDoesNotSkipTheHooksBeforeThePromotion(t *testing.T) {
	h := newHooking(t, v1alpha1.PlanHook{Name: "slow", At: "AfterFence"}, v1alpha1.PlanHook{Name: "mount", At: "BeforePromote"})
	h.moves(v1alpha1.ActionFailover)
	for range 100 { // the first hook does not answer, and north-2 falls silent
		e := h.turn()
		if silent := len(h.calls) > 0 || len(e.Hooks) > 0; silent {
			h.calls = append(h.calls, "")
			h.pass(100*time.Millisecond, "north-2")
		} else {
			h.pass(100 * time.Millisecond)
		}
	}
	if h.det.Classes["north-2"] != Lost {
		t.Fatalf("north-2 is %s", h.det.Classes["north-2"])
	}
	h.calls = nil
	h.until(v1alpha1.RunCompleted)
	all := strings.Join(h.calls, "\n")
	if !strings.Contains(all, "one/hook.slow/") || !strings.Contains(all, "one/hook.mount/") {
		t.Errorf("hooks\n%s", all)
	}
}
