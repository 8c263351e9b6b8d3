package sim

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Schedules of plans: three applications that depend on each other, a plan with
// waves and hooks, people who order, steer, approve and attest, drills, and the
// same faults as everywhere.

const (
	plansEnd = 120 * time.Second
	// givenUp is when people end what finds no target: nobody discards here what a
	// copy holds alone.
	givenUp  = 95 * time.Second
	planName = "city"
)

// lanes is how many applications a world has.
func (o Options) lanes() int {
	if o.Plans {
		return 3
	}
	return 1
}

// needs are the applications that a lane's depends on: some of those before it.
func (w *world) needs(l *lane) []v1alpha1.ApplicationReference {
	var out []v1alpha1.ApplicationReference
	for i := range l.id {
		if w.fourth.IntN(2) == 0 {
			out = append(out, reference(i))
		}
	}
	return out
}

func reference(lane int) v1alpha1.ApplicationReference {
	return v1alpha1.ApplicationReference{Namespace: appNames[lane].Namespace, Name: appNames[lane].Name}
}

func (w *world) seedPlan() *v1alpha1.RecoveryPlan {
	p := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: planName}}
	p.Spec.Use = []v1alpha1.PlanUse{v1alpha1.PlanOrdered, v1alpha1.PlanAutomatic}[w.fourth.IntN(2)]
	if w.fourth.IntN(3) > 0 {
		early := v1alpha1.PlanWave{Name: "early", Parallelism: int32(w.fourth.IntN(3))}
		for i := range 1 + w.fourth.IntN(2) {
			early.Applications.Names = append(early.Applications.Names, reference(i))
		}
		p.Spec.Waves = append(p.Spec.Waves, early)
	}
	p.Spec.Hooks = w.seedHooks()
	return p
}

func (w *world) schedulePlans() {
	w.until = plansEnd
	w.people()
	w.after(healAt, w.heal)
	soon := func() time.Duration { return w.between(faultsFrom+2*time.Second, 26*time.Second) }
	switch w.rng.IntN(5) {
	case 0: // a center is gone
		w.after(soon(), func() { w.trace("FAULT %s loses power", places[0]); w.powerOff(0) })
		w.after(w.between(36*time.Second, healAt), func() { w.powerOn(0) })
	case 1: // a center falls silent, and somebody orders everything away; later it has no power
		at := soon()
		w.after(at, func() { w.trace("FAULT %s is isolated", places[0]); w.setCut(0, -1, true) })
		w.after(at+w.between(-time.Second, 4*time.Second), func() { w.orderPlan(v1alpha1.ActionFailover) })
		w.after(at+w.between(6*time.Second, 14*time.Second), func() { w.trace("FAULT %s loses power", places[0]); w.powerOff(0) })
		w.after(w.between(40*time.Second, healAt), func() { w.setCut(0, -1, false); w.powerOn(0) })
	case 2:
		w.after(soon(), func() { w.orderPlan(v1alpha1.ActionFailover) })
	default:
		w.after(soon(), func() { w.orderPlan(v1alpha1.ActionSwitchover) })
	}
	for range w.rng.IntN(3) {
		w.after(w.between(faultsFrom, faultsTo), w.fault)
	}
	for range w.fourth.IntN(3) {
		l := w.lanes[w.fourth.IntN(len(w.lanes))]
		w.after(w.between(faultsFrom, faultsTo), func() { w.orderOne(l, v1alpha1.ActionDrill) })
	}
	if w.fourth.IntN(2) == 0 {
		l := w.lanes[w.fourth.IntN(len(w.lanes))]
		w.after(w.between(faultsFrom, healAt), func() { w.orderOne(l, v1alpha1.ActionFailback) })
	}
	if w.fourth.IntN(2) == 0 { // home again, by plan
		action := []v1alpha1.Action{v1alpha1.ActionSwitchover, v1alpha1.ActionFailback}[w.fourth.IntN(2)]
		w.after(w.between(faultsTo, healAt+10*time.Second), func() { w.orderPlan(action) })
	}
	if w.fourth.IntN(6) == 0 {
		w.after(w.between(faultsFrom, faultsTo), func() { w.orderPlan(v1alpha1.ActionDrill) })
	}
	for range w.fourth.IntN(3) {
		w.after(w.between(faultsFrom, faultsTo), w.steer)
	}
}

// orderPlan is an operator's word to empty a place, most often that of the first
// application's primary.
func (w *world) orderPlan(action v1alpha1.Action) {
	at := siteOf(w.first().dataset.Status.Primary)
	if w.leader < 0 || w.busyWith(func(r *v1alpha1.RecoveryRun) bool { return r.Spec.ForPlan() }) {
		return
	}
	spec := v1alpha1.RecoveryRunSpec{Plan: planName, Action: action, Requester: "bob", PauseLimitSeconds: int32(3 + w.fourth.IntN(8))}
	switch w.fourth.IntN(4) {
	case 0:
		spec.From.Region = regions[at]
	case 1:
		spec.From.Cluster = places[at]
	default:
		spec.From.Center = places[at]
	}
	if !action.Planned() && action != v1alpha1.ActionFailover || action == v1alpha1.ActionFailback {
		spec.From = v1alpha1.Place{} // the plan's, wherever they are
	} else if w.fourth.IntN(3) == 0 {
		spec.To.Center = places[(at+1+w.fourth.IntN(centers-1))%centers]
		if spec.From.Region != "" && within(spec.To.Center, spec.From.Region) {
			spec.To = v1alpha1.Place{}
		}
	}
	w.create(fmt.Sprintf("plan-%d", len(w.truth.runs)), spec)
}

func within(place, region string) bool { return regions[siteOf(place)] == region }

// orderOne is an operator's order for one application.
func (w *world) orderOne(l *lane, action v1alpha1.Action) {
	d := w.truth.units[l.id].dataset
	ofLane := func(r *v1alpha1.RecoveryRun) bool { return r.Spec.ForPlan() || r.Spec.Application == reference(l.id) }
	if w.leader < 0 || d.Status.Primary == "" || action != v1alpha1.ActionDrill && w.busyWith(ofLane) {
		return
	}
	spec := v1alpha1.RecoveryRunSpec{Application: reference(l.id), Action: action, From: v1alpha1.Place{Cluster: d.Status.Primary}, Requester: "bob", PauseLimitSeconds: 5}
	if action == v1alpha1.ActionFailback {
		if d.Status.Primary == d.Home() {
			return
		}
		spec.To.Cluster = d.Home()
	}
	w.create(fmt.Sprintf("%s-%d", map[v1alpha1.Action]string{v1alpha1.ActionDrill: "drill", v1alpha1.ActionFailback: "failback"}[action], len(w.truth.runs)), spec)
}

func (w *world) busyWith(is func(*v1alpha1.RecoveryRun) bool) bool {
	for _, r := range w.truth.runs {
		if !failover.Finished(r.Status.Phase) && is(r) {
			return true
		}
	}
	return false
}

// steer is a person's word on the plan's run that is under way.
func (w *world) steer() {
	for _, name := range sorted(w.truth.runs) {
		r := w.truth.runs[name]
		if !r.Spec.ForPlan() || failover.Finished(r.Status.Phase) || w.leader < 0 {
			continue
		}
		if w.fourth.IntN(4) == 0 {
			w.say(name, v1alpha1.StepAbort, v1alpha1.DecisionReject, "bob", nil)
			return
		}
		w.say(name, v1alpha1.StepPause, v1alpha1.DecisionReject, "bob", nil)
		w.after(w.between(8*time.Second, 20*time.Second), func() { w.say(name, v1alpha1.StepResume, v1alpha1.DecisionApprove, "bob", nil) })
	}
}

// say records one person's word.
func (w *world) say(run, step string, decision v1alpha1.Decision, by string, change func(*v1alpha1.ApprovalSpec)) {
	a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("word-%d", len(w.truth.approvals)), CreationTimestamp: metav1.NewTime(epochZero.Add(w.now))},
		Spec: v1alpha1.ApprovalSpec{Run: run, Step: step, Decision: decision, Approver: by}}
	if change != nil {
		change(&a.Spec)
	}
	w.trace("ORDER %s says %s %s to %s", by, decision, step, run)
	_, _ = w.commit(entry{write: a})
}

// said is true when somebody has said something of a run for a step after a time.
func (w *world) said(run, step, by string, since time.Duration) bool {
	return slices.ContainsFunc(w.truth.approvals, func(a *v1alpha1.Approval) bool {
		return a.Spec.Run == run && a.Spec.Step == step && a.Spec.Approver == by && a.CreationTimestamp.Sub(epochZero) >= since
	})
}

// people answer what they are asked, most of the time, after a while. Once
// everything has healed nobody is left waiting.
func (w *world) people() {
	w.after(500*time.Millisecond, w.people)
	late := w.now > healAt+5*time.Second
	if w.leader < 0 || !late && !w.chance(0.3) {
		return
	}
	for _, name := range sorted(w.truth.runs) {
		r := w.truth.runs[name]
		st := r.Status
		switch {
		case failover.Finished(st.Phase):
		case w.now > givenUp && (r.Spec.ForPlan() || st.Phase == v1alpha1.RunPreflight):
			if !w.said(name, v1alpha1.StepAbort, "alice", 0) {
				w.say(name, v1alpha1.StepAbort, v1alpha1.DecisionReject, "alice", nil)
			}
		case st.Timeline.AwaitingSince != nil && st.Timeline.ApprovedAt == nil && st.Reason == failover.ReasonApproval:
			w.agree(r)
		case st.Phase != v1alpha1.RunPaused:
		case st.Reason == failover.ReasonFenceUnproven:
			w.attest(r)
		case st.Reason == failover.ReasonSomeFailed:
			step, decision := v1alpha1.StepRetry, v1alpha1.DecisionApprove
			if w.said(name, step, "alice", 0) || late {
				step, decision = v1alpha1.StepAbort, v1alpha1.DecisionReject
			}
			if !w.said(name, step, "alice", 0) {
				w.say(name, step, decision, "alice", nil)
			}
		case st.Reason == failover.ReasonPausedByPerson && !late: // bob means it
		case !w.said(name, v1alpha1.StepResume, "alice", w.now-3*time.Second):
			w.say(name, v1alpha1.StepResume, v1alpha1.DecisionApprove, "alice", func(a *v1alpha1.ApprovalSpec) { a.AcceptLoss = accepts(r) })
		}
	}
}

// agree accepts the loss that is shown, or rarely does not want it at all.
func (w *world) agree(r *v1alpha1.RecoveryRun) {
	if w.said(r.Name, "", "alice", w.now-3*time.Second) {
		return
	}
	if w.fourth.IntN(12) == 0 {
		w.say(r.Name, "", v1alpha1.DecisionReject, "alice", nil)
		return
	}
	w.say(r.Name, "", v1alpha1.DecisionApprove, "alice", func(a *v1alpha1.ApprovalSpec) { a.AcceptLoss = accepts(r) })
}

// attest: who ordered the run swears at once, and carol does not always look
// before she does. alice and dave go there.
func (w *world) attest(r *v1alpha1.RecoveryRun) {
	for _, rd := range r.Status.Datasets {
		at := rd.PreviousPrimary
		off := !w.power[siteOf(at)]
		for _, who := range []string{"alice", "bob", "carol", "dave"} {
			swears := off
			switch who {
			case "bob":
				swears = r.Spec.Requester == who
			case "carol":
				swears = off || w.opt.Seed%2 == 0
			case "dave":
				swears = off && w.opt.Seed%3 > 0
			}
			if swears && !w.said(r.Name, v1alpha1.StepAttest, who, w.now-20*time.Second) {
				w.say(r.Name, v1alpha1.StepAttest, v1alpha1.DecisionApprove, who, func(a *v1alpha1.ApprovalSpec) { a.PoweredOff = at })
			}
		}
	}
}
