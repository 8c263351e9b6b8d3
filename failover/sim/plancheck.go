package sim

import (
	"slices"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// stale is how old a leader's view may be when what it wants is committed: it was
// frozen, and others have led since.
const stale = 6 * time.Second

// planCheck judges the runs of plans by what is committed of them and of the runs
// that they order.
type planCheck struct {
	w *world
	// stuck are runs that a wave need not wait for any longer.
	stuck map[string]bool
	// since is when a run's phase or reason became what it is.
	since map[string]time.Duration
}

func newPlanCheck(w *world) planCheck {
	return planCheck{w: w, stuck: map[string]bool{}, since: map[string]time.Duration{}}
}

func (p *planCheck) violate(format string, args ...any) {
	p.w.lanes[0].check.violate("plan", format, args...)
}

// committed is called for every write of a run, before it is applied.
func (p *planCheck) committed(o, n *v1alpha1.RecoveryRun) {
	if o == nil || o.Status.Phase != n.Status.Phase || o.Status.Reason != n.Status.Reason {
		p.since[n.Name] = p.w.now
	}
	switch n.Status.Phase {
	case v1alpha1.RunPaused, v1alpha1.RunAwaitingApproval, v1alpha1.RunPreflight, v1alpha1.RunReturning:
		p.stuck[n.Name] = true
	}
	if o == nil && n.Spec.Parent != "" {
		p.child(n)
	}
	if !n.Spec.ForPlan() {
		return
	}
	if o == nil {
		p.w.result.PlanRuns++
	} else if o.Status.Phase != n.Status.Phase || o.Status.Reason != n.Status.Reason {
		p.w.trace("committed: plan's run %s is %s %s %s", n.Name, n.Status.Phase, n.Status.Reason, n.Status.Message)
	}
	switch {
	case o != nil && failover.Finished(o.Status.Phase) && o.Status.Phase != n.Status.Phase:
		p.violate("run %s goes on after %s", n.Name, o.Status.Phase)
	case o != nil:
		p.account(o, n)
	}
}

// account judges what a plan's run says of its applications.
func (p *planCheck) account(o, n *v1alpha1.RecoveryRun) {
	for i := range n.Status.Applications {
		a := &n.Status.Applications[i]
		was := len(o.Status.Applications) > i && o.Status.Applications[i].State == v1alpha1.ApplicationCompleted
		if a.State == v1alpha1.ApplicationCompleted && !was && !p.settled(n, a) {
			p.violate("run %s calls %s completed, and it is neither moved nor has its run ended well", n.Name, a.Key())
		}
		if n.Status.Phase == v1alpha1.RunCompleted && a.State != v1alpha1.ApplicationCompleted {
			p.violate("run %s is completed, and %s is %s", n.Name, a.Key(), a.State)
		}
	}
}

// child judges that the turn of an application has come.
func (p *planCheck) child(n *v1alpha1.RecoveryRun) {
	p.w.result.Children++
	parent := p.w.truth.runs[n.Spec.Parent]
	if parent == nil {
		p.violate("run %s has a parent that does not exist", n.Name)
		return
	}
	all := parent.Status.Applications
	at := slices.IndexFunc(all, func(a v1alpha1.RunApplication) bool { return a.Name == n.Spec.Application.Name })
	if at < 0 {
		p.violate("run %s is made, and the order of %s is not committed", n.Name, parent.Name)
		return
	}
	if age := p.w.now - p.since[parent.Name]; failover.Finished(parent.Status.Phase) && age > stale {
		p.violate("run %s is made, and %s is %s since %v", n.Name, parent.Name, parent.Status.Phase, age)
	}
	if at, paused := pausedAt(parent); paused && p.w.now-at > stale {
		p.violate("run %s is made, and a person has paused %s at %.3fs", n.Name, parent.Name, at.Seconds())
	}
	p.gate(parent, &all[at], n)
	for i := range all {
		if a := &all[i]; n.Spec.Action != v1alpha1.ActionDrill && p.needs(n.Spec.Application.Name, a.Name, all) && !p.done(parent, a) {
			p.violate("run %s is made before %s, which it depends on, is recovered", n.Name, a.Key())
		}
	}
	p.wave(parent, &all[at], n)
}

// gate judges that the hooks before the plan and before the wave are through.
func (p *planCheck) gate(parent *v1alpha1.RecoveryRun, a *v1alpha1.RunApplication, n *v1alpha1.RecoveryRun) {
	plan := p.w.truth.plan
	for i := range plan.Spec.Hooks {
		h, name := &plan.Spec.Hooks[i], ""
		switch h.At {
		case "BeforePlan":
			name = hookKey(parent.Name, h.Name)
		case "BeforeWave":
			name = hookKey(parent.Name, h.Name) + "." + parent.Status.Waves[a.Wave].Name
		default:
			continue
		}
		if !p.w.far.passed(name, h) {
			p.violate("run %s is made, and hook %s at %s is not through", n.Name, h.Name, h.At)
		}
	}
}

// pausedAt is when a person paused a plan's run that nobody has resumed since, by the
// words that it has followed.
func pausedAt(r *v1alpha1.RecoveryRun) (at time.Duration, paused bool) {
	for _, o := range r.Status.Orders {
		switch o.Step {
		case v1alpha1.StepPause:
			at, paused = o.At.Sub(epochZero), true
		case v1alpha1.StepResume, v1alpha1.StepRetry:
			paused = false
		}
	}
	return at, paused
}

// needs is true where one application depends on another, directly or through
// some that do not move.
func (p *planCheck) needs(who, on string, moving []v1alpha1.RunApplication) bool {
	for _, ref := range p.w.truth.units[laneOf(who)].app.Spec.DependsOn {
		moves := slices.ContainsFunc(moving, func(a v1alpha1.RunApplication) bool { return a.Name == ref.Name })
		if ref.Name == on || !moves && p.needs(ref.Name, on, moving) {
			return true
		}
	}
	return false
}

// done is true for what was settled once: it may have gone home since.
func (p *planCheck) done(parent *v1alpha1.RecoveryRun, a *v1alpha1.RunApplication) bool {
	return a.State == v1alpha1.ApplicationCompleted || p.settled(parent, a)
}

// settled is true when an application of a plan's run has nothing left to do.
func (p *planCheck) settled(parent *v1alpha1.RecoveryRun, a *v1alpha1.RunApplication) bool {
	if r := p.runOf(parent, a.Name); r != nil && (r.Status.Phase == v1alpha1.RunCompleted ||
		r.Status.Phase == v1alpha1.RunAborted && (r.Status.Reason == failover.ReasonNothingToDo || r.Status.Reason == failover.ReasonSourceBack)) {
		return true
	}
	if parent.Spec.Action == v1alpha1.ActionDrill {
		return false
	}
	d, from := p.w.truth.units[laneOf(a.Name)].dataset, parent.Spec.From
	at := d.Status.Primary
	if parent.Spec.Action == v1alpha1.ActionFailback {
		return d.Status.Phase == v1alpha1.DatasetSteady && at == d.Home()
	}
	left := at != from.Cluster && at != from.Center && (from.Region == "" || !within(at, from.Region))
	// A switchover that has begun since, and closes it, has not moved it yet.
	there := d.Status.Phase == v1alpha1.DatasetSteady || d.Status.Phase == v1alpha1.DatasetClosing
	return there && left || at == parent.Spec.To.Center
}

// runOf is the newest run of an application that a plan's run has made.
func (p *planCheck) runOf(parent *v1alpha1.RecoveryRun, app string) *v1alpha1.RecoveryRun {
	var last *v1alpha1.RecoveryRun
	for _, name := range sorted(p.w.truth.runs) {
		if r := p.w.truth.runs[name]; r.Spec.Parent == parent.Name && r.Spec.Application.Name == app {
			last = r
		}
	}
	return last
}

// wave judges that the waves before are settled, and how many go together.
func (p *planCheck) wave(parent *v1alpha1.RecoveryRun, a *v1alpha1.RunApplication, n *v1alpha1.RecoveryRun) {
	together := int32(1)
	for i := range parent.Status.Applications {
		b := &parent.Status.Applications[i]
		r := p.runOf(parent, b.Name)
		goes := r != nil && !failover.Finished(r.Status.Phase) && !p.stuck[r.Name]
		if b.Wave < a.Wave && (goes || r == nil && p.free(b)) && !p.done(parent, b) {
			p.violate("run %s of wave %d is made, and %s of wave %d is under way", n.Name, a.Wave, b.Key(), b.Wave)
		}
		if b.Wave == a.Wave && goes {
			together++
		}
	}
	if plan := p.w.truth.plan; int(a.Wave) < len(plan.Spec.Waves) {
		if limit := plan.Spec.Waves[a.Wave].Parallelism; limit > 0 && together > limit {
			p.violate("run %s is the %d. of wave %d that is under way, at most %d may be", n.Name, together, a.Wave, limit)
		}
	}
}

// free is true for an application that nothing but its turn has kept from a run, also
// when the write that is judged was decided upon.
func (p *planCheck) free(a *v1alpha1.RunApplication) bool {
	for name, r := range p.w.truth.runs {
		if r.Spec.Application.Name == a.Name && failover.Finished(r.Status.Phase) && p.w.now-p.since[name] < onItsWay {
			return false
		}
	}
	other := p.w.busyWith(func(r *v1alpha1.RecoveryRun) bool { return r.Spec.Application.Name == a.Name })
	return a.NeedsApproval == "" && a.State == v1alpha1.ApplicationWaiting && len(a.After) == 0 && !other
}

// attested judges a proof by the word of people: two who did not order the run,
// and what they swear of does not write.
func (c *checker) attested(a, b v1alpha1.DatasetStatus) {
	if b.FenceProof != v1alpha1.FenceAttested || a.FenceProof == b.FenceProof {
		return
	}
	c.w.result.Attested++
	r := c.w.truth.runs[b.Run]
	var by []string
	for _, w := range c.w.truth.approvals {
		if w.Spec.Run == b.Run && w.Spec.Step == v1alpha1.StepAttest && w.Spec.PoweredOff == b.PreviousPrimary && w.Spec.Approver != r.Spec.Requester && !slices.Contains(by, w.Spec.Approver) {
			by = append(by, w.Spec.Approver)
		}
	}
	if len(by) < 2 {
		c.violate("I1", "epoch %d rests on the word that %s has no power, and only %v say so", b.Epoch, b.PreviousPrimary, by)
	}
}

// drilled judges a drill: nothing is left of one that ends, and none counts that
// went on beside a move.
func (c *checker) drilled(o, n *v1alpha1.RecoveryRun) {
	for _, s := range c.lane.sites {
		if failover.Finished(n.Status.Phase) && s.drills[n.Name] {
			c.violate("drill", "%s is %s, and a copy of it is left at %s", n.Name, n.Status.Phase, s.name())
		}
	}
	if n.Status.Phase == v1alpha1.RunCleaning && o.Status.Phase == v1alpha1.RunDrilling && n.Status.Reason == "" {
		c.w.result.Drills++
		begun := n.CreationTimestamp.Sub(epochZero)
		if len(o.Status.Steps) > 0 { // it may have waited for another drill to end
			begun = o.Status.Steps[0].StartedAt.Sub(epochZero)
		}
		if c.movedAt > begun && c.w.now-c.movedAt > stale {
			c.violate("drill", "%s has gone on although the role began to move at %.3fs", n.Name, c.movedAt.Seconds())
		}
	}
}

// undrilled: a drill is no reason for a change of a role.
func (c *checker) undrilled(b v1alpha1.DatasetStatus) {
	if r := c.w.truth.runs[b.Run]; r != nil && r.Spec.Action == v1alpha1.ActionDrill {
		c.violate("drill", "%s owns the dataset in phase %s", b.Run, b.Phase)
	}
}

// shows is true when people who approve a plan's run were shown this epoch of the
// application of one that it made.
func (p *planCheck) shows(plan string, r *v1alpha1.RecoveryRun, epoch int64) bool {
	parent := p.w.truth.runs[plan]
	return parent != nil && slices.ContainsFunc(parent.Status.Applications, func(a v1alpha1.RunApplication) bool {
		return a.Name == r.Spec.Application.Name && a.Epoch == epoch
	})
}
