package failover

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// city is a plan that would succeed.
func city() *v1alpha1.RecoveryPlan {
	p := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "city", Generation: 3}}
	p.Spec.Use = v1alpha1.PlanAutomatic
	p.Spec.Waves = []v1alpha1.PlanWave{{Name: "data", Applications: v1alpha1.ApplicationSelector{Names: []v1alpha1.ApplicationReference{{Namespace: "pay", Name: "ledger"}}}}}
	p.Spec.Hooks = []v1alpha1.PlanHook{{Name: "check", At: "BeforeVerify", Wait: &v1alpha1.WaitHook{Condition: "true"}}}
	p.Spec.Safety = v1alpha1.SafetyPolicy{MinActiveCenters: 2, MinVantageCenters: 2}
	p.Spec.Approvals = v1alpha1.ApprovalPolicy{Required: 2, Groups: []string{"dr"}}
	return p
}

// assessed is the plan's status after two turns.
func (w *world) assessed(p *v1alpha1.RecoveryPlan) v1alpha1.RecoveryPlanStatus {
	w.s.Plans = []*v1alpha1.RecoveryPlan{p}
	for range 2 {
		if e := w.turn(); len(e.Plans) == 1 {
			w.s.Plans = e.Plans
		}
	}
	if e := w.turn(); len(e.Plans) != 0 {
		w.t.Errorf("a plan of which nothing changes is written again: %+v", e.Plans[0].Status)
	}
	return w.s.Plans[0].Status
}

func TestWhatWouldStopAPlanIsNamedBeforehand(t *testing.T) {
	job := func(j v1alpha1.JobHook) func(*world, *v1alpha1.RecoveryPlan) {
		return func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Hooks[0].Wait, p.Spec.Hooks[0].Job = nil, &j }
	}
	at := func(point v1alpha1.HookPoint, wave string) func(*world, *v1alpha1.RecoveryPlan) {
		return func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Hooks[0].At, p.Spec.Hooks[0].Wave = point, wave }
	}
	both := func(changes ...func(*world, *v1alpha1.RecoveryPlan)) func(*world, *v1alpha1.RecoveryPlan) {
		return func(w *world, p *v1alpha1.RecoveryPlan) {
			for _, change := range changes {
				change(w, p)
			}
		}
	}
	people := func(required int32, names ...string) func(*world, *v1alpha1.RecoveryPlan) {
		return func(w *world, p *v1alpha1.RecoveryPlan) {
			p.Spec.Approvals = v1alpha1.ApprovalPolicy{Required: required}
			w.s.Approvers = &Approvers{People: names}
		}
	}
	fault := func(generation int64) func(*world, *v1alpha1.RecoveryPlan) {
		return func(w *world, _ *v1alpha1.RecoveryPlan) {
			w.s.HookFaults = map[HookRef]string{{"city", generation, "check"}: "condition is not valid"}
		}
	}
	for name, tc := range map[string]struct {
		change         func(*world, *v1alpha1.RecoveryPlan)
		reason, wanted string // of Ready; PlanReady with a text means a warning
	}{
		"nothing": {func(*world, *v1alpha1.RecoveryPlan) {}, "PlanReady", ""},
		"an application that is not ready": {func(w *world, _ *v1alpha1.RecoveryPlan) {
			w.s.Fleet.Clusters[1].Hold, w.s.Fleet.Clusters[2].Hold = "power works", "power works"
		}, "Application", "pay/ledger: NoTargetReady"},
		"nobody selected": {func(_ *world, p *v1alpha1.RecoveryPlan) {
			p.Spec.Applications.Names = []v1alpha1.ApplicationReference{{Namespace: "pay", Name: "nobody"}}
		}, "Applications", "selects no application"},
		"a selector that cannot be read": {func(_ *world, p *v1alpha1.RecoveryPlan) {
			p.Spec.Applications.LabelSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Almost"}}}
		}, "Applications", "label selector"},
		"a circle": {func(w *world, _ *v1alpha1.RecoveryPlan) {
			app := w.app().DeepCopy()
			app.Spec.DependsOn = []v1alpha1.ApplicationReference{{Namespace: "pay", Name: "ledger"}}
			replace(w.s.Applications, app)
		}, "Order", "in a circle"},
		"a policy that leaves it out": {func(w *world, _ *v1alpha1.RecoveryPlan) {
			app := w.app().DeepCopy()
			app.Spec.Failover.WithinRegion, app.Spec.Failover.AcrossRegions = v1alpha1.FailoverManual, v1alpha1.FailoverManual
			replace(w.s.Applications, app)
		}, "Application", "leaves it out"},
		"a hook that could not run":           {fault(3), "Hook", "check: condition is not valid"},
		"one of an older form of the plan":    {fault(2), "PlanReady", ""},
		"one whose failure stops nothing":     {both(fault(3), func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Hooks[0].OnFailure = v1alpha1.HookContinue }), "PlanReady", "condition is not valid"},
		"a hook of a wave that is not there":  {at("BeforeWave", "later"), "Hook", "would never run"},
		"a wave at a phase's point":           {at("BeforeFence", "data"), "Hook", "at BeforeWave or AfterWave"},
		"a plan's Job without a cluster":      {both(job(v1alpha1.JobHook{In: v1alpha1.HookActive, Namespace: "pay"}), at("BeforePlan", "")), "Hook", "no Active cluster"},
		"a plan's Job without a namespace":    {both(job(v1alpha1.JobHook{In: v1alpha1.HookNamed, Cluster: "north-1"}), at("AfterWave", "data")), "Hook", "give job.namespace"},
		"a Job at a target that is not known": {both(job(v1alpha1.JobHook{In: v1alpha1.HookTarget}), at("BeforeFence", "")), "PlanReady", "order with --to"},
		"groups of machines":                  {func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Approvals.Groups = []string{"tripod:agents"} }, "Approvals", "groups of people"},
		"a right that nobody has":             {people(1), "Approvals", "bind the ClusterRole tripod:approver"},
		"more than there are":                 {people(2, "ann"), "Approvals", "2 people must agree, and the hub gives the right to 1: ann"},
		"as many as there are":                {people(2, "ann", "ben"), "PlanReady", "one more"},
		"enough":                              {people(2, "ann", "ben", "cat"), "PlanReady", ""},
		"a group, whoever is in it":           {func(w *world, _ *v1alpha1.RecoveryPlan) { w.s.Approvers = &Approvers{Groups: []string{"dr"}} }, "PlanReady", ""},
		"more centers than there are":         {func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Safety.MinActiveCenters = 3 }, "Safety", "minActiveCenters 3"},
		"more vantages than there are":        {func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Safety.MinVantageCenters = 3 }, "Safety", "minVantageCenters 3"},
		"a fraction that one center exceeds":  {func(_ *world, p *v1alpha1.RecoveryPlan) { p.Spec.Safety.MaxLostFraction = "0.1" }, "Safety", "maxLostFraction"},
		"and of no concern to one that is ordered": {func(_ *world, p *v1alpha1.RecoveryPlan) {
			p.Spec.Use, p.Spec.Safety.MinVantageCenters = v1alpha1.PlanOrdered, 3
		}, "PlanReady", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := newWorld(t).steady(), city()
			w.turns(2)
			tc.change(w, p)
			st := w.assessed(p)
			ready := st.Conditions[0]
			text := ready.Message
			for _, c := range st.Preflight {
				if c.Result == v1alpha1.PreflightWarning {
					text += c.Message
				}
			}
			if ready.Reason != tc.reason || !strings.Contains(text, tc.wanted) || (ready.Status == metav1.ConditionTrue) != (tc.reason == "PlanReady") {
				t.Errorf("%s %s: %s, want %s %q", ready.Status, ready.Reason, text, tc.reason, tc.wanted)
			}
		})
	}
}

// Each of two applications finds room, and both together do not.
func TestAPlanAsksForTheRoomOfAllTogether(t *testing.T) {
	w := placed(t)
	second, d, p := w.app().DeepCopy(), w.db().DeepCopy(), *w.s.Placements[0].DeepCopy()
	second.Name, second.Spec.Datasets, second.Spec.Placements = "stock", []string{"stock-db"}, []string{"stock"}
	d.Name, p.Name = "stock-db", "stock"
	for c, o := range w.s.Observed {
		c.Dataset.Name = "stock-db"
		w.s.Observed[c] = o
	}
	w.s.Applications, w.s.Datasets, w.s.Placements = append(w.s.Applications, second), append(w.s.Datasets, d), append(w.s.Placements, &p)
	for room, want := range map[string]string{"5": "Capacity", "3": "PlanReady"} {
		w.s.Kubernetes["north-2"].Requested = amount(room, "4Gi")
		w.turns(2)
		if c := condition(w.app(), v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue {
			t.Fatalf("the first alone: %s", c.Message)
		}
		if ready := w.assessed(city()).Conditions[0]; ready.Reason != want || want == "Capacity" && !strings.Contains(ready.Message, "north-2: with all that the plan brings there from center north-1 it would lack 1 of cpu") {
			t.Errorf("%s: %s", ready.Reason, ready.Message)
		}
	}
}

func TestAPlanThatRunsIsNotReady(t *testing.T) {
	w := newWorld(t).steady()
	w.turns(2)
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "city.1"}, Spec: v1alpha1.RecoveryRunSpec{Plan: "city", Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}, Requester: "ann"}}
	r.Status.Phase = v1alpha1.RunPaused
	w.s.Runs = append(w.s.Runs, r)
	if ready := w.assessed(city()).Conditions[0]; ready.Reason != "RunInProgress" || !strings.Contains(ready.Message, "city.1") {
		t.Errorf("%s: %s", ready.Reason, ready.Message)
	}
}
