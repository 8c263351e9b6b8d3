package sim

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// The times of a schedule: quiet at first, then faults, then everything heals.
const (
	faultsFrom = 8 * time.Second
	faultsTo   = 40 * time.Second
	healAt     = 52 * time.Second
	end        = 80 * time.Second
)

func (w *world) schedule() {
	for i := range centers {
		for _, l := range w.lanes {
			w.client(l, i, i*1_000_000)
		}
	}
	if w.opt.Flap {
		w.flaps()
		return
	}
	if w.opt.Plans {
		w.schedulePlans()
		return
	}
	w.person()
	w.impatient()
	if w.opt.Quiet {
		w.after(faultsFrom, func() { w.plan(v1alpha1.ActionSwitchover, places[1+w.second.IntN(2)], 10) })
		return
	}
	if w.opt.Pledges {
		w.scheduleOutage()
		return
	}
	for range 1 + w.rng.IntN(4) {
		w.after(w.between(faultsFrom, faultsTo), w.fault)
	}
	w.after(healAt, w.heal)
	for range w.second.IntN(3) {
		at := faultsFrom + time.Duration(w.second.Int64N(int64(faultsTo-faultsFrom)))
		w.after(at-w.now, w.switchover)
		if w.second.IntN(2) == 0 {
			w.after(at-w.now+time.Duration(w.second.Int64N(int64(1500*time.Millisecond))), w.fault)
		}
	}
	for range w.third.IntN(3) {
		w.after(faultsFrom+time.Duration(w.third.Int64N(int64(healAt-faultsFrom))), w.failback)
	}
}

// switchover is an operator's order to move a healthy primary, which somebody may
// abort a moment later.
func (w *world) switchover() {
	d := w.first().dataset
	to := places[w.second.IntN(centers)]
	limit := int32(1 + w.second.IntN(6))
	aborts, after := w.second.IntN(2) == 0, time.Duration(w.second.Int64N(int64(2*time.Second)))
	if w.leader < 0 || to == d.Status.Primary || d.Status.Primary == "" || w.busy() {
		return
	}
	name := w.plan(v1alpha1.ActionSwitchover, to, limit)
	if !aborts {
		after = healAt - w.now // what still waits then is given up
	}
	w.after(after, func() { w.abort(name) })
}

// plan orders a planned move and returns the run's name.
func (w *world) plan(action v1alpha1.Action, to string, limit int32) string {
	d := w.first().dataset
	name := fmt.Sprintf("planned-%d", len(w.truth.runs))
	w.create(name, v1alpha1.RecoveryRunSpec{Application: reference(0), Action: action,
		From: v1alpha1.Place{Cluster: d.Status.Primary}, To: v1alpha1.Place{Cluster: to}, Requester: "bob", PauseLimitSeconds: limit})
	return name
}

// create is a person's order.
func (w *world) create(name string, spec v1alpha1.RecoveryRunSpec) {
	w.trace("ORDER %s orders %s: %s of %s from %+v to %+v, %d s at most, instead of %q", spec.Requester, name, spec.Action, spec.Application.Name, spec.From, spec.To,
		spec.PauseLimitSeconds, spec.InsteadOf)
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(epochZero.Add(w.now))}, Spec: spec}
	_, _ = w.commit(entry{write: r}) // a new name cannot conflict
}

// abort is a person's word on a run that is under way.
func (w *world) abort(run string) {
	if failover.Finished(w.truth.runs[run].Status.Phase) {
		return
	}
	if w.leader < 0 {
		w.after(time.Second, func() { w.abort(run) })
		return
	}
	w.trace("ORDER bob aborts %s", run)
	a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("abort-%d", len(w.truth.approvals)), CreationTimestamp: metav1.NewTime(epochZero.Add(w.now))},
		Spec: v1alpha1.ApprovalSpec{Run: run, Step: v1alpha1.StepAbort, Decision: v1alpha1.DecisionReject, Approver: "bob"}}
	_, _ = w.commit(entry{write: a})
}

// busy is true while a run is under way.
func (w *world) busy() bool {
	for _, r := range w.truth.runs {
		if !failover.Finished(r.Status.Phase) {
			return true
		}
	}
	return false
}

// client writes from one center to whatever copy accepts writes there and
// elsewhere: it does not care whom the hub calls primary.
func (w *world) client(l *lane, center, id int) {
	var next func()
	next = func() {
		w.after(w.between(150*time.Millisecond, 450*time.Millisecond), next)
		if w.now > w.until-2*time.Second {
			return
		}
		for _, s := range l.sites {
			id++
			n := id
			w.send(center, s.id, func() {
				if s.db.running && s.db.primary && !s.db.closing {
					s.accept(n, func(a write) { l.check.ack(a) })
				}
			})
		}
	}
	w.after(w.between(0, time.Second), next)
}

// person answers a run that asks, most of the time, after a while.
func (w *world) person() {
	w.after(500*time.Millisecond, w.person)
	for _, name := range sorted(w.truth.runs) {
		r := w.truth.runs[name]
		asked, step := r.Status.Phase == v1alpha1.RunAwaitingApproval && r.Status.Timeline.AwaitingSince != nil, ""
		if r.Status.Phase == v1alpha1.RunPaused && r.Status.Reason == failover.ReasonLossGrown {
			asked, step = true, v1alpha1.StepResume
		}
		answered := slices.ContainsFunc(w.truth.approvals, func(a *v1alpha1.Approval) bool { return a.Spec.Run == name && a.Spec.Step == step })
		if !asked || answered || !w.chance(0.2) || w.leader < 0 {
			continue
		}
		a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("approval-%d", len(w.truth.approvals)),
			CreationTimestamp: metav1.NewTime(epochZero.Add(w.now))}}
		a.Spec = v1alpha1.ApprovalSpec{Run: name, Step: step, Decision: v1alpha1.DecisionApprove, Approver: "alice", AcceptLoss: accepts(r)}
		if _, err := w.commit(entry{write: a}); err == nil {
			w.trace("alice approves %s, accepting %+v", name, a.Spec.AcceptLoss)
		}
	}
}

// begun is when a run could begin: when it was made, or when a person let it go on.
func begun(r *v1alpha1.RecoveryRun) time.Time {
	if at := r.Status.Timeline.ApprovedAt; at != nil {
		return at.Time
	}
	return r.CreationTimestamp.Time
}

// accepts the loss that a run shows.
func accepts(r *v1alpha1.RecoveryRun) *v1alpha1.AcceptedLoss {
	if l := r.Status.Loss; l != nil {
		return &v1alpha1.AcceptedLoss{Seconds: l.Seconds, Extent: l.Extent}
	}
	return nil
}

// fault breaks one thing for a while.
func (w *world) fault() {
	i := w.rng.IntN(centers)
	if w.chance(0.6) {
		i = siteOf(w.first().dataset.Spec.Members[0].Cluster) // the first primary's center
	}
	j := (i + 1 + w.rng.IntN(centers-1)) % centers
	m := w.members[i]
	until := func(a, b time.Duration, do func()) { w.after(w.between(a, b), do) }
	switch kind := w.rng.IntN(13); kind {
	case 0, 1, 2:
		w.trace("FAULT %s loses power", places[i])
		w.powerOff(i)
		until(5*time.Second, 40*time.Second, func() { w.powerOn(i) })
	case 3:
		w.trace("FAULT the agent of %s dies", places[i])
		w.agents(i, (*site).stopAgent)
		until(time.Second, 20*time.Second, func() { w.restartAgent(i) })
	case 4:
		w.trace("FAULT the hub member of %s dies", places[i])
		m.stop()
		until(time.Second, 15*time.Second, func() { w.restartMember(i) })
	case 5:
		w.trace("FAULT the hub member of %s freezes", places[i])
		m.paused = true
		until(300*time.Millisecond, 4*time.Second, m.resume)
	case 6:
		w.trace("FAULT %s is isolated", places[i])
		w.setCut(i, -1, true)
		until(2*time.Second, 30*time.Second, func() { w.setCut(i, -1, false) })
	case 7:
		w.trace("FAULT nothing goes from %s to %s", places[i], places[j])
		w.cut[i][j] = true
		both := w.chance(0.5)
		w.cut[j][i] = w.cut[j][i] || both
		until(2*time.Second, 30*time.Second, func() { w.cut[i][j], w.cut[j][i] = false, w.cut[j][i] && !both })
	case 8:
		w.trace("FAULT the network is slow and loses messages")
		w.slow, w.loss = true, 0.05+w.rng.Float64()*0.15
		until(5*time.Second, 20*time.Second, func() { w.slow, w.loss = false, 0 })
	case 10:
		w.trace("FAULT the network is slow, and soon nothing goes from %s to anyone", places[i])
		w.slow = true
		until(time.Second, 6*time.Second, func() { w.cut[i] = [centers]bool{true, true, true}; w.cut[i][i] = false })
		until(20*time.Second, 25*time.Second, func() { w.slow, w.cut[i] = false, [centers]bool{} })
	case 11:
		w.trace("FAULT the link between %s and %s is cut, and then %s loses power", places[i], places[j], places[i])
		w.setCut(i, j, true)
		until(2*time.Second, 15*time.Second, func() { w.powerOff(i) })
		until(20*time.Second, 30*time.Second, func() { w.setCut(i, j, false); w.powerOn(i) })
	case 12:
		w.order(places[i])
	case 9:
		w.trace("FAULT the agents of %s and %s die together", places[i], places[j])
		w.agents(i, (*site).stopAgent)
		until(0, 3*time.Second, func() { w.agents(j, (*site).stopAgent) })
		until(8*time.Second, 20*time.Second, func() { w.restartAgent(i); w.restartAgent(j) })
	}
}

// order is an operator's failover away from a cluster, whether it is well or not.
func (w *world) order(from string) {
	if w.opt.Plans {
		w.orderPlan(v1alpha1.ActionFailover)
		return
	}
	d := w.first().dataset
	if w.leader < 0 || d.Status.Primary != from || w.busy() {
		return
	}
	w.create(fmt.Sprintf("ordered-%d", len(w.truth.runs)), v1alpha1.RecoveryRunSpec{Application: reference(0), Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: from}, Requester: "bob"})
}

func (w *world) setCut(i, j int, cut bool) {
	for k := range centers {
		if k != i && (j < 0 || j == k) {
			w.cut[i][k], w.cut[k][i] = cut, cut
		}
	}
}

func (w *world) powerOff(i int) {
	w.power[i] = false
	w.members[i].stop()
	w.agents(i, (*site).powerOff)
}

func (w *world) powerOn(i int) {
	if w.power[i] {
		return
	}
	w.trace("%s has power again", places[i])
	w.power[i] = true
	w.members[i].start()
	w.agents(i, (*site).powerOn)
}

func (w *world) restartAgent(i int) {
	if w.power[i] && !w.lanes[0].sites[i].agentUp {
		w.agents(i, (*site).startAgent)
	}
}

func (w *world) restartMember(i int) {
	if w.power[i] && !w.members[i].up {
		w.members[i].start()
	}
}

func (w *world) heal() {
	w.trace("everything heals")
	w.cut, w.deaf, w.slow, w.loss = [centers][centers]bool{}, [centers]bool{}, false, 0
	for i := range centers {
		w.powerOn(i)
		w.restartAgent(i)
		w.restartMember(i)
		if w.members[i].paused {
			w.members[i].resume()
		}
	}
}
