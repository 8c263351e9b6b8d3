package failover

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestAPlansRunMovesApplicationsInTheOrderOfTheirDependencies(t *testing.T) {
	w := newPlanWorld(t)
	w.add("channels", "core")
	w.add("core", "ledger", "accounts")
	w.add("ledger")
	w.add("accounts")
	w.start("out", fromNorth1)
	run := w.until("out", v1alpha1.RunCompleted)
	if got := w.moved(); got != "ledger accounts core channels" {
		t.Errorf("moved %q", got)
	}
	for _, d := range w.s.Datasets {
		if d.Status.Primary != "north-2" || d.Status.Epoch != 2 {
			t.Errorf("%s is at %s, epoch %d", d.Name, d.Status.Primary, d.Status.Epoch)
		}
	}
	if p := run.Status.Progress; p.Completed != 4 || p.Applications != 4 || !strings.Contains(run.Status.Message, "4 of 4 applications were moved") {
		t.Errorf("progress %+v, message %q", p, run.Status.Message)
	}
	for _, a := range run.Status.Applications {
		if child := w.s.run(a.Run); child == nil || child.Spec.Parent != "out" || child.Spec.Requester != "ann" || a.State != v1alpha1.ApplicationCompleted {
			t.Errorf("application %+v, run %v", a, child)
		}
	}
}

func TestADependencyThroughAnApplicationThatDoesNotMoveCounts(t *testing.T) {
	w := newPlanWorld(t)
	w.add("top", "between")
	w.add("between", "bottom")
	w.add("bottom")
	w.dbOf("between").Status.Primary = "north-2"
	w.start("out", fromNorth1)
	w.until("out", v1alpha1.RunCompleted)
	if got := w.moved(); got != "bottom top" {
		t.Errorf("moved %q", got)
	}
}

func TestAFailureHoldsWhatDependsOnItAndNothingElse(t *testing.T) {
	w := newPlanWorld(t)
	w.add("ledger")
	w.add("core", "ledger")
	w.add("channels", "core")
	w.add("accounts")
	w.add("cards", "accounts")
	w.refusing(VerbPromote, "ledger")
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Waves: []v1alpha1.PlanWave{{Name: "data", Applications: named("ledger", "accounts")}}})
	spec := fromNorth1
	spec.Plan = "city"
	w.start("out", spec)
	w.until("out", v1alpha1.RunWaves)
	w.beat(60)
	want := map[string]v1alpha1.RunApplicationState{"ledger": v1alpha1.ApplicationStuck, "core": v1alpha1.ApplicationHeld, "channels": v1alpha1.ApplicationHeld,
		"accounts": v1alpha1.ApplicationCompleted, "cards": v1alpha1.ApplicationCompleted}
	for app, state := range want {
		if a := w.entry("out", app); a.State != state {
			t.Errorf("%s is %s (%s %s), want %s", app, a.State, a.Reason, a.Message, state)
		}
	}
	if a := w.entry("out", "core"); a.Reason != ReasonDependency || !strings.Contains(a.Message, "pay/ledger, which is Stuck: Refused") {
		t.Errorf("core: %s %s", a.Reason, a.Message)
	}
	w.answer = func(Command) (Result, bool) { return Result{Outcome: Done}, true }
	w.say(w.entry("out", "ledger").Run, v1alpha1.StepResume, v1alpha1.DecisionApprove, "bob")
	w.until("out", v1alpha1.RunCompleted)
	if got := w.moved(); !strings.HasSuffix(got, "core channels") {
		t.Errorf("moved %q", got)
	}
}

func TestWavesFollowEachOtherWithinTheirParallelism(t *testing.T) {
	w := newPlanWorld(t)
	for _, name := range []string{"a1", "a2", "a3", "b1", "b2", "c1"} {
		w.add(name)
	}
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Waves: []v1alpha1.PlanWave{
		{Name: "first", Applications: v1alpha1.ApplicationSelector{LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"b1", "b2"}}}}}, Parallelism: 1},
		{Name: "second", Applications: named("a1", "a2", "a3", "b1"), Parallelism: 2}}})
	spec := fromNorth1
	spec.Plan = "city"
	w.start("out", spec)
	most := map[int32]int{}
	for range 400 {
		w.beat(1)
		active := map[int32]int{}
		open := map[int32]bool{}
		for _, a := range w.s.run("out").Status.Applications {
			r := w.s.run("out.1.pay." + a.Name)
			if r != nil && !Finished(r.Status.Phase) {
				active[a.Wave]++
				most[a.Wave] = max(most[a.Wave], active[a.Wave])
			}
			open[a.Wave] = open[a.Wave] || r != nil
		}
		if len(active) > 1 {
			t.Fatalf("two waves are under way at once: %v", active)
		}
	}
	w.until("out", v1alpha1.RunCompleted)
	if most[0] != 1 || most[1] != 2 || most[2] != 1 {
		t.Errorf("most at once by wave: %v", most)
	}
	if got := w.moved(); got != "b1 b2 a1 a2 a3 c1" {
		t.Errorf("moved %q", got)
	}
}

func TestWhatHasNoOrderIsRefusedAndNamed(t *testing.T) {
	w := newPlanWorld(t)
	w.add("x", "z")
	w.add("y", "x")
	w.add("z", "y")
	w.start("circle", fromNorth1)
	run := w.until("circle", v1alpha1.RunAborted)
	if run.Status.Reason != ReasonCycle || !strings.Contains(run.Status.Message, "pay/x → pay/z → pay/y → pay/x") {
		t.Errorf("%s: %s", run.Status.Reason, run.Status.Message)
	}
	w.s.Applications[0].Spec.DependsOn = nil
	w.writePlan("waves", v1alpha1.RecoveryPlanSpec{Waves: []v1alpha1.PlanWave{{Name: "early", Applications: named("y")}}})
	spec := fromNorth1
	spec.Plan = "waves"
	w.start("crossed", spec)
	run = w.until("crossed", v1alpha1.RunAborted)
	if run.Status.Reason != ReasonWaveOrder || !strings.Contains(run.Status.Message, "pay/y of wave early depends on pay/x, which is in the later wave rest") {
		t.Errorf("%s: %s", run.Status.Reason, run.Status.Message)
	}
	spec.Plan = "none"
	w.start("unplanned", spec)
	if run = w.until("unplanned", v1alpha1.RunAborted); run.Status.Reason != ReasonPlanMissing {
		t.Errorf("%s: %s", run.Status.Reason, run.Status.Message)
	}
	if w.moved() != "" {
		t.Errorf("moved %q", w.moved())
	}
}

func TestTheLossOfACenterIsOneRunOfItsAutomaticPlan(t *testing.T) {
	w := newPlanWorld(t)
	w.add("core", "ledger")
	w.add("ledger")
	w.add("other", "another") // in no plan: runs of their own, in order
	w.add("another")
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Applications: named("core", "ledger"), Use: v1alpha1.PlanAutomatic})
	w.lose("north-1")
	w.until("city.north-1.1", v1alpha1.RunCompleted, "north-1")
	w.beat(20, "north-1")
	got := w.moved()
	if strings.Index(got, "ledger") > strings.Index(got, "core") || strings.Index(got, "another") > strings.LastIndex(got, "other") {
		t.Errorf("moved %q", got)
	}
	names := map[string]bool{}
	for _, r := range w.s.Runs {
		names[r.Name] = true
	}
	for _, want := range []string{"city.north-1.1", "city.north-1.1.1.pay.core", "city.north-1.1.1.pay.ledger", "pay.other.2", "pay.another.2"} {
		if !names[want] {
			t.Errorf("no run %s in %v", want, names)
		}
		delete(names, want)
	}
	if len(names) > 0 {
		t.Errorf("more runs than needed: %v", names)
	}
	if !w.s.run("city.north-1.1").Status.Automatic {
		t.Error("the run does not say that nobody was asked")
	}
}

func TestAnAutomaticPlanThatHasNoOrderDoesNotStopAnybody(t *testing.T) {
	w := newPlanWorld(t)
	w.add("x", "y")
	w.add("y", "x")
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanAutomatic})
	w.lose("north-1")
	w.beat(20, "north-1")
	for _, d := range w.s.Datasets {
		if d.Status.Primary != "north-2" {
			t.Errorf("%s is still at %s", d.Name, d.Status.Primary)
		}
	}
}

func TestOneRoundOfApprovalsCoversTheApplications(t *testing.T) {
	w := newPlanWorld(t)
	w.add("core", "ledger")
	w.add("ledger")
	w.writePlan("region", v1alpha1.RecoveryPlanSpec{Approvals: v1alpha1.ApprovalPolicy{Required: 2, Groups: []string{"dr"}}})
	w.start("out", v1alpha1.RecoveryRunSpec{Plan: "region", Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Region: "north"}, To: v1alpha1.Place{Region: "south"}})
	run := w.until("out", v1alpha1.RunAwaitingApproval)
	if l := run.Status.Loss; !l.Possible || l.Seconds < 7 || l.Bytes != 0 && l.Bytes < 1000 ||
		!strings.Contains(l.Message, "2 applications may lose writes") || !strings.Contains(l.Message, "pay/core 21 s") {
		t.Errorf("loss %+v", run.Status.Loss)
	}
	if a := w.entry("out", "core"); a.Loss == nil || !a.Loss.Possible || a.Target != "south-1" {
		t.Errorf("core: %+v", a)
	}
	for _, by := range []string{"ann", "bob", "bob", "mallory"} {
		w.say("out", "", v1alpha1.DecisionApprove, by)
		if by != "mallory" {
			w.s.Approvals[len(w.s.Approvals)-1].Spec.ApproverGroups = []string{"dr"}
		}
	}
	w.beat(10)
	if run = w.s.run("out"); run.Status.Phase != v1alpha1.RunAwaitingApproval || len(w.s.Runs) != 1 {
		t.Fatalf("the requester, one person twice and one outside the group were enough: %s", run.Status.Phase)
	}
	w.say("out", "", v1alpha1.DecisionApprove, "carl")
	w.s.Approvals[len(w.s.Approvals)-1].Spec.ApproverGroups = []string{"dr"}
	w.until("out", v1alpha1.RunCompleted)
	for _, name := range []string{"core", "ledger"} {
		child := w.s.run(w.entry("out", name).Run)
		if w.dbOf(name).Status.Primary != "south-1" || child.Status.Timeline.ApprovedAt == nil || child.Status.Loss == nil {
			t.Errorf("%s is at %s, its run %+v", name, w.dbOf(name).Status.Primary, child.Status)
		}
	}
}

func TestAnApprovalDoesNotCoverMoreLossThanWasShown(t *testing.T) {
	w := newPlanWorld(t)
	w.add("core", "ledger")
	w.add("ledger")
	w.start("out", v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Region: "north"}, To: v1alpha1.Place{Region: "south"}})
	w.until("out", v1alpha1.RunAwaitingApproval)
	w.say("out", "", v1alpha1.DecisionApprove, "bob")
	w.until("out", v1alpha1.RunWaves)
	late := int64(900)
	lagging := func() {
		o := w.s.Observed[Copy{key(w.dbOf("core")), "south-1"}]
		o.LagSeconds = &late
		w.s.Observed[Copy{key(w.dbOf("core")), "south-1"}] = o
	}
	for range 60 {
		lagging()
		w.turn()
		w.pass(100 * time.Millisecond)
	}
	child := w.s.run("out.1.pay.core")
	if child == nil || child.Status.Phase != v1alpha1.RunAwaitingApproval || child.Status.Loss.Seconds < late || w.dbOf("core").Status.Epoch != 1 {
		t.Errorf("core: %+v", child)
	}
}

func TestAnAutomaticPlanAsksOnlyForThoseThatNeedIt(t *testing.T) {
	w := newPlanWorld(t)
	w.add("ledger")
	w.add("archive")
	w.dbOf("archive").Status.SyncSet = []string{"north-1"}
	w.s.Observed[Copy{key(w.dbOf("archive")), "north-1"}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: 1, Guarded: v1alpha1.Guarded}
	w.writePlan("city", v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanAutomatic})
	w.lose("north-1")
	w.beat(30, "north-1")
	run := w.s.run("city.north-1.1")
	if run == nil || run.Status.Reason != ReasonApproval || w.dbOf("ledger").Status.Primary != "north-2" || w.dbOf("archive").Status.Epoch != 1 {
		t.Fatalf("run %+v", run)
	}
	w.say(run.Name, "", v1alpha1.DecisionReject, "bob")
	run = w.until(run.Name, v1alpha1.RunPaused, "north-1")
	if a := w.entry(run.Name, "archive"); run.Status.Reason != ReasonSomeFailed || a.Reason != ReasonRejected {
		t.Errorf("%s %s; archive %+v", run.Status.Reason, run.Status.Message, a)
	}
	w.beat(30, "north-1")
	if len(w.s.Runs) != 2 {
		t.Errorf("what was rejected is tried again: %d runs", len(w.s.Runs))
	}
	w.s.Now = w.s.Now.Add(2 * time.Second)
	w.say(run.Name, v1alpha1.StepRetry, v1alpha1.DecisionApprove, "bob")
	w.beat(5, "north-1")
	w.say(run.Name, "", v1alpha1.DecisionApprove, "bob")
	w.until(run.Name, v1alpha1.RunCompleted, "north-1")
	if w.dbOf("archive").Status.Epoch != 2 {
		t.Errorf("archive is at epoch %d", w.dbOf("archive").Status.Epoch)
	}
}

func TestAPlansRunIsPausedResumedRetriedAndAborted(t *testing.T) {
	w := newPlanWorld(t)
	w.add("a")
	w.add("b", "a")
	w.add("c", "b")
	spec := fromNorth1
	w.start("out", spec)
	w.until("out.1.pay.a", v1alpha1.RunFencing)
	w.say("out", v1alpha1.StepPause, v1alpha1.DecisionReject, "ann")
	w.beat(60)
	if run := w.s.run("out"); run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonPausedByPerson || w.moved() != "a" {
		t.Fatalf("paused: %s %s, moved %q", run.Status.Phase, run.Status.Reason, w.moved())
	}
	w.refusing(VerbFence, "b")
	w.s.Fleet.Sightings["north-1"] = Sighting{HeardBy: w.s.Fleet.Sightings["north-1"].HeardBy, Stable: time.Hour}
	w.say("out", v1alpha1.StepResume, v1alpha1.DecisionApprove, "ann")
	w.beat(30)
	if a := w.entry("out", "b"); a.State != v1alpha1.ApplicationStuck || w.entry("out", "c").State != v1alpha1.ApplicationHeld {
		t.Fatalf("b %+v", a)
	}
	w.say("out", v1alpha1.StepAbort, v1alpha1.DecisionReject, "ann")
	run := w.until("out", v1alpha1.RunAborted)
	if !strings.Contains(run.Status.Message, "1 of 3 applications were moved") || w.entry("out", "c").State != v1alpha1.ApplicationFailed {
		t.Errorf("%s; c %+v", run.Status.Message, w.entry("out", "c"))
	}
}

func TestWhatFailedIsTriedAgainUnderAnotherName(t *testing.T) {
	w := newPlanWorld(t)
	w.add("a")
	w.add("b", "a")
	spec := fromNorth1
	spec.Action, spec.PauseLimitSeconds = v1alpha1.ActionSwitchover, 5
	w.answer = func(c Command) (Result, bool) {
		r := Result{Outcome: Done, Position: "0/3000000", PositionBytes: 0x3000000, Timeline: 2}
		if c.Verb == VerbClose && c.Attempt == 1 && strings.HasPrefix(c.Run, "out.1.pay.a") {
			r.Outcome = Refused
		}
		return r, true
	}
	w.start("out", spec)
	run := w.until("out", v1alpha1.RunPaused)
	if run.Status.Reason != ReasonSomeFailed || !strings.Contains(run.Status.Message, "pay/a is Failed: NotClosed") || !strings.Contains(run.Status.Message, "pay/b is Held") {
		t.Fatalf("%s: %s", run.Status.Reason, run.Status.Message)
	}
	w.say("out", v1alpha1.StepRetry, v1alpha1.DecisionApprove, "ann")
	run = w.until("out", v1alpha1.RunCompleted)
	if run.Status.Applications[0].Run != "out.2.pay.a" || len(run.Status.Orders) != 1 {
		t.Errorf("applications %+v, orders %+v", run.Status.Applications, run.Status.Orders)
	}
	if got := w.dbOf("b").Status.Primary; got != "north-2" {
		t.Errorf("b is at %s", got)
	}
}

func TestARunIsPausedOnlyWhereNobodySuffers(t *testing.T) {
	w := newPlanWorld(t)
	w.add("a")
	w.start("one", v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "a"}, Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: "north-1"}})
	w.say("one", v1alpha1.StepResume, v1alpha1.DecisionApprove, "ann") // said before the pause: means nothing
	w.say("one", v1alpha1.StepPause, v1alpha1.DecisionReject, "ann")
	w.beat(20)
	run := w.s.run("one")
	if run.Status.Phase != v1alpha1.RunPaused || run.Status.ResumePhase != v1alpha1.RunPreflight || w.moved() != "" {
		t.Fatalf("%s %s, moved %q", run.Status.Phase, run.Status.Message, w.moved())
	}
	w.say("one", v1alpha1.StepResume, v1alpha1.DecisionApprove, "ann")
	w.until("one", v1alpha1.RunFencing)
	w.say("one", v1alpha1.StepPause, v1alpha1.DecisionReject, "bob")
	w.beat(20)
	if run = w.s.run("one"); run.Status.Phase != v1alpha1.RunPaused || w.count(VerbPromote) != 0 {
		t.Fatalf("%s, %d promotions", run.Status.Phase, w.count(VerbPromote))
	}
	w.say("one", v1alpha1.StepResume, v1alpha1.DecisionApprove, "bob")
	w.until("one", v1alpha1.RunCompleted)
	w.add("b")
	w.start("closing", v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "b"}, Action: v1alpha1.ActionSwitchover,
		From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: "north-2"}})
	w.answer = func(c Command) (Result, bool) {
		return Result{Outcome: Done, Position: "0/3000000", PositionBytes: 0x3000000, Timeline: 2}, c.Verb != VerbClose
	}
	w.until("closing", v1alpha1.RunClosing)
	w.say("closing", v1alpha1.StepPause, v1alpha1.DecisionReject, "ann")
	w.beat(3)
	if run = w.s.run("closing"); run.Status.Phase != v1alpha1.RunClosing {
		t.Errorf("writes are kept closed by a pause: %s", run.Status.Phase)
	}
}

// Another run moves the application after people have agreed. What they were shown
// was of another primary.
func TestAnApprovalDoesNotCoverWhatCameAfterAnotherRoleChange(t *testing.T) {
	w := newPlanWorld(t)
	w.add("ledger")
	w.start("out", v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Region: "north"}, To: v1alpha1.Place{Region: "south"}})
	w.until("out", v1alpha1.RunAwaitingApproval)
	d := w.dbOf("ledger").DeepCopy()
	d.Status.Primary, d.Status.Epoch, d.Status.SyncSet, d.Status.SyncTarget = "north-2", 2, []string{"north-2"}, nil
	w.stamp(d)
	replace(w.s.Datasets, d)
	w.observe(d)
	w.say("out", "", v1alpha1.DecisionApprove, "bob")
	w.beat(30)
	if child := w.s.run("out.1.pay.ledger"); child == nil || child.Status.Phase != v1alpha1.RunAwaitingApproval || w.dbOf("ledger").Status.Epoch != 2 {
		t.Errorf("%+v", child)
	}
}

// What is tried again is assessed anew, and an approval of less does not cover it.
func TestARetryThatWouldLoseMoreIsAskedAbout(t *testing.T) {
	more, less := v1alpha1.LossEstimate{Possible: true, Seconds: 900}, v1alpha1.LossEstimate{Possible: true, Seconds: 16}
	was := v1alpha1.RunApplication{NeedsApproval: "region", Target: "south-1", Epoch: 2, Loss: &less}
	for name, change := range map[string]func(*v1alpha1.RunApplication){
		"more loss":      func(a *v1alpha1.RunApplication) { a.Loss = &more },
		"another epoch":  func(a *v1alpha1.RunApplication) { a.Epoch = 3 },
		"another target": func(a *v1alpha1.RunApplication) { a.Target = "south-2" },
	} {
		now := was
		if change(&now); !asksMore(was, now) {
			t.Errorf("%s is not asked about", name)
		}
	}
	if asksMore(was, was) {
		t.Error("the same is asked about again")
	}
}

// TestAWaveWaitsForAReturn: an application that another run moves holds nobody up,
// but one that is just being brought back goes before the next wave.
func TestAWaveWaitsForAReturn(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	x := &planStep{step: &step{Snapshot: &Snapshot{Now: now}}}
	run := func(phase v1alpha1.RunPhase, age time.Duration) *v1alpha1.RecoveryRun {
		r := &v1alpha1.RecoveryRun{}
		r.Status.Phase, r.CreationTimestamp = phase, metav1.NewTime(now.Add(-age))
		return r
	}
	for name, test := range map[string]struct {
		run  *v1alpha1.RecoveryRun
		want v1alpha1.RunApplicationState
	}{
		"it is returned":               {run(v1alpha1.RunReturning, time.Second), v1alpha1.ApplicationWaiting},
		"it is returned for too long":  {run(v1alpha1.RunReturning, time.Hour), v1alpha1.ApplicationStuck},
		"it is moved by another order": {run(v1alpha1.RunPromoting, time.Second), v1alpha1.ApplicationStuck},
	} {
		if got := x.movedByOther(test.run); got.RunApplicationState != test.want || got.ready {
			t.Errorf("%s: %s, ready %t; want %s and not ready", name, got.RunApplicationState, got.ready, test.want)
		}
	}
}
