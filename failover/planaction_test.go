package failover

import (
	"slices"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// leftAway makes applications that a failover has left in north-2; their home is north-1.
func leftAway(t *testing.T, needs map[string]string, names ...string) *world {
	w := newPlanWorld(t)
	w.answer = func(Command) (Result, bool) {
		return Result{Outcome: Done, Position: "0/3000000", PositionBytes: 0x3000000, Timeline: 2}, true
	}
	for _, name := range names {
		if dep := needs[name]; dep != "" {
			w.add(name, dep)
		} else {
			w.add(name)
		}
		d := w.dbOf(name)
		d.Status.Primary, d.Status.Epoch, d.Status.SyncSet, d.Status.SyncTarget = "north-2", 2, []string{"north-2", "north-1"}, []string{"north-1"}
		w.observe(d)
	}
	return w
}

func TestAPlanBringsItsApplicationsHome(t *testing.T) {
	w := leftAway(t, map[string]string{"core": "ledger"}, "core", "ledger", "other")
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Applications: named("core", "ledger")})
	w.start("home", v1alpha1.RecoveryRunSpec{Plan: "city", Action: v1alpha1.ActionFailback, From: v1alpha1.Place{Center: "north-2"}})
	w.until("home", v1alpha1.RunCompleted)
	if got := w.moved(); got != "ledger core" {
		t.Errorf("moved %q, want ledger before core, and nothing else", got)
	}
	for name, want := range map[string]string{"core": "north-1", "ledger": "north-1", "other": "north-2"} {
		if at := w.dbOf(name).Status.Primary; at != want {
			t.Errorf("%s is at %s, want %s", name, at, want)
		}
	}
	w.start("again", v1alpha1.RecoveryRunSpec{Plan: "city", Action: v1alpha1.ActionFailback})
	if run := w.until("again", v1alpha1.RunAborted); run.Status.Reason != ReasonNothingToDo || !strings.Contains(run.Status.Message, "is at home") {
		t.Errorf("%s %s", run.Status.Reason, run.Status.Message)
	}
}

// A gate that is shut holds what depends on the application, and nothing else; the
// rest is tried again when a person says so.
func TestAPlanGoesHomeWhereTheGateIsOpen(t *testing.T) {
	w := leftAway(t, map[string]string{"core": "ledger"}, "core", "ledger", "other")
	d := w.dbOf("ledger")
	d.Status.SyncSet, d.Status.SyncTarget = []string{"north-2"}, nil
	stale := func() {
		w.dbOf("ledger").Status.SyncSet = []string{"north-2"}
	}
	w.start("home", v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailback})
	for range 200 {
		if w.s.run("home").Status.Phase == v1alpha1.RunPaused {
			break
		}
		stale()
		w.beat(1)
	}
	run := w.s.run("home")
	if run.Status.Reason != ReasonSomeFailed || w.entry("home", "ledger").Reason != ReasonNotCaughtUp || w.entry("home", "core").State != v1alpha1.ApplicationHeld ||
		w.dbOf("other").Status.Primary != "north-1" {
		t.Fatalf("%s %s; ledger %+v", run.Status.Phase, run.Status.Message, w.entry("home", "ledger"))
	}
	w.dbOf("ledger").Status.SyncSet = []string{"north-2", "north-1"}
	w.say("home", v1alpha1.StepRetry, v1alpha1.DecisionApprove, "ann")
	w.until("home", v1alpha1.RunCompleted)
	if w.dbOf("core").Status.Primary != "north-1" {
		t.Error("core is not at home")
	}
}

func TestAPlanIsDrilledWaveByWave(t *testing.T) {
	w := newPlanWorld(t)
	w.add("core", "ledger")
	w.add("ledger")
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Waves: []v1alpha1.PlanWave{{Name: "first", Applications: named("ledger")}}})
	w.refusing(VerbDrillStart, "ledger")
	w.start("rehearsal", v1alpha1.RecoveryRunSpec{Plan: "city", Action: v1alpha1.ActionDrill})
	w.say("rehearsal", v1alpha1.StepPause, v1alpha1.DecisionReject, "ann")
	w.beat(20)
	if len(w.sent) > 0 && w.count(VerbDrillStart) > 0 {
		t.Fatal("a run that was paused has begun a drill")
	}
	w.say("rehearsal", v1alpha1.StepResume, v1alpha1.DecisionApprove, "ann")
	run := w.until("rehearsal", v1alpha1.RunPaused)
	for range 50 {
		if run = w.s.run("rehearsal"); run.Status.Reason == ReasonSomeFailed {
			break
		}
		w.beat(1)
	}
	if a := w.entry("rehearsal", "ledger"); run.Status.Reason != ReasonSomeFailed || a.State != v1alpha1.ApplicationFailed || a.Reason != ReasonDrillFailed {
		t.Fatalf("%s %s: %+v", run.Status.Phase, run.Status.Reason, a)
	}
	if a := w.entry("rehearsal", "core"); a.State != v1alpha1.ApplicationCompleted {
		t.Errorf("core was not drilled because ledger could not be: %+v", a)
	}
	w.answer = func(Command) (Result, bool) { return Result{Outcome: Done}, true }
	w.say("rehearsal", v1alpha1.StepRetry, v1alpha1.DecisionApprove, "ann")
	w.until("rehearsal", v1alpha1.RunCompleted)
	var drilled []string
	for _, c := range w.sent {
		if c.Verb == VerbDrillStart && !slices.Contains(drilled, c.Dataset.Name) {
			drilled = append(drilled, c.Dataset.Name)
		}
	}
	if !slices.Equal(drilled, []string{"ledger-db", "core-db"}) || w.count(VerbDrillStop) < 3 || w.moved() != "" {
		t.Errorf("drilled %v, %d cleaned, moved %q", drilled, w.count(VerbDrillStop), w.moved())
	}
}

func TestHooksAroundAPlanAndItsWaves(t *testing.T) {
	h := &hooking{world: newPlanWorld(t)}
	h.add("a")
	h.add("b")
	hooks := []v1alpha1.PlanHook{{Name: "tell", At: "BeforePlan"}, {Name: "told", At: "AfterPlan"}, {Name: "wave", At: "BeforeWave"}, {Name: "waved", At: "AfterWave", Wave: "first"}}
	h.writePlan("p", v1alpha1.RecoveryPlanSpec{Hooks: hooks, Waves: []v1alpha1.PlanWave{{Name: "first", Applications: named("a")}}})
	fails := map[string]bool{"one/hook.wave.rest/1": true}
	where := func() string {
		return h.dbOf("a").Status.Primary + " " + h.dbOf("b").Status.Primary
	}
	play := func(phase v1alpha1.RunPhase) *v1alpha1.RecoveryRun {
		for range 300 {
			e := h.turn()
			for _, c := range e.Hooks {
				h.calls = append(h.calls, c.ID+" "+where())
				h.s.Results[c.ID] = Result{Outcome: Done}
				if fails[c.ID] {
					h.s.Results[c.ID] = Result{Outcome: Failed, Message: "503"}
				}
			}
			if r := h.s.run("one"); r.Status.Phase == phase {
				return r
			}
			h.pass(100_000_000)
			for _, name := range []string{"a", "b"} {
				if d := h.dbOf(name); d.Status.Phase == v1alpha1.DatasetSteady {
					h.observe(d)
				}
			}
		}
		t.Fatalf("the run did not become %s: %v", phase, h.calls)
		return nil
	}
	h.start("one", v1alpha1.RecoveryRunSpec{Plan: "p", Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}})
	if run := play(v1alpha1.RunPaused); run.Status.Reason != ReasonHookFailed || where() != "north-2 north-1" {
		t.Fatalf("%s %s, %s", run.Status.Reason, run.Status.Message, where())
	}
	h.say("one", v1alpha1.StepResume, v1alpha1.DecisionApprove, "bob")
	play(v1alpha1.RunCompleted)
	want := []string{"one/hook.tell/1 north-1 north-1", "one/hook.wave.first/1 north-1 north-1", "one/hook.waved.first/1 north-2 north-1",
		"one/hook.wave.rest/1 north-2 north-1", "one/hook.wave.rest/2 north-2 north-1", "one/hook.told/1 north-2 north-2"}
	if !slices.Equal(h.calls, want) {
		t.Errorf("hooks\n%s\nwant\n%s", strings.Join(h.calls, "\n"), strings.Join(want, "\n"))
	}
}

func TestAHookBeforeAPlanMayEndIt(t *testing.T) {
	w := newPlanWorld(t)
	w.add("a")
	w.writePlan("p", v1alpha1.RecoveryPlanSpec{Hooks: []v1alpha1.PlanHook{{Name: "ask", At: "BeforePlan", OnFailure: v1alpha1.HookAbort}}})
	w.start("one", v1alpha1.RecoveryRunSpec{Plan: "p", Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}})
	w.s.Results["one/hook.ask/1"] = Result{Outcome: Failed, Message: "no"}
	run := w.until("one", v1alpha1.RunAborted)
	if run.Status.Reason != ReasonHookFailed || len(w.s.Runs) != 1 || w.dbOf("a").Status.Epoch != 1 {
		t.Errorf("%s %s, %d runs", run.Status.Reason, run.Status.Message, len(w.s.Runs))
	}
}
