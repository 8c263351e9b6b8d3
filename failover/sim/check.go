package sim

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// acknowledged is a write that a client was told is done.
type acknowledged struct {
	write
	at time.Duration
}

// checker judges the modelled world after each event that matters.
type checker struct {
	w           *world
	lane        *lane
	result      *Result
	acked       []acknowledged
	took        map[string]bool // runs that have changed the role
	movedAt     time.Duration   // when the role last began to move
	excused     map[int]bool    // lost with an approval that covered it
	promoted    map[int64]int
	lossy       map[int64]bool // epochs whose primary was not in the sync set
	lastRenewal map[string]time.Duration
	// renewedBefore is the last renewal that a decision which is committed now can
	// have known of, if lastRenewal came while it was on its way.
	renewedBefore map[string]time.Duration
	back          map[string]time.Duration // the end of a cluster's last loss
	// anyRenewal is when somebody was renewed last, and steady since when that never
	// paused for long.
	anyRenewal, steady time.Duration
	// lapsed is the last renewal before a cluster's last loss that healed while the hub
	// was steady.
	lapsed  map[string]time.Duration
	highest [centers]int64 // epoch that each effector has seen
	lastAck time.Duration
	// steadfast is the primary that must not stop: I9.
	steadfast *site
}

func (c *checker) violate(invariant, format string, args ...any) {
	v := fmt.Sprintf("%s at %.3fs: ", invariant, c.w.now.Seconds()) + fmt.Sprintf(format, args...)
	c.result.Violations = append(c.result.Violations, v)
	c.w.trace("VIOLATION %s", v)
}

// writing is called whenever a copy starts to accept writes: I1.
func (c *checker) writing(s *site) {
	for _, t := range c.lane.sites {
		if t != s && t.db.running && t.db.primary {
			c.violate("I1", "%s (epoch %d) and %s (epoch %d) both accept writes", s.name(), s.db.epoch, t.name(), t.db.epoch)
		}
	}
}

func (c *checker) ack(w write) {
	if d := c.unit().dataset.Status; d.CatchUp != nil && d.Epoch == w.epoch && d.Phase == v1alpha1.DatasetPromoting {
		c.violate("ban", "write %d is acknowledged at epoch %d, which a switchover has not opened yet", w.id, w.epoch)
	}
	if c.lastAck > 0 {
		c.result.Pause = max(c.result.Pause, c.w.now-c.lastAck)
	}
	c.acked = append(c.acked, acknowledged{w, c.w.now})
	c.lastAck = c.w.now
	c.result.Acknowledged++
}

// promotedAt is called when a copy becomes primary: I2, I4, I5, I6.
func (c *checker) promotedAt(s *site) {
	epoch := s.db.epoch
	c.result.Promotions++
	c.promoted[epoch]++
	d := c.unit().dataset
	if c.promoted[epoch] > 1 {
		c.violate("I6", "epoch %d was promoted %d times", epoch, c.promoted[epoch])
	}
	if d.Status.Epoch < epoch || d.Status.Epoch == epoch && (d.Status.Primary != s.name() || d.Status.Phase == v1alpha1.DatasetFencing) {
		c.violate("I5", "%s was promoted at epoch %d; committed is %d with %s in phase %q", s.name(), epoch, d.Status.Epoch, d.Status.Primary, d.Status.Phase)
	}
	c.lost(s, "when it was promoted")
}

// lost compares every acknowledged write with a primary's log: I2.
func (c *checker) lost(s *site, when string) {
	have := make(map[int]bool, len(s.db.log))
	for _, w := range s.db.log {
		have[w.id] = true
	}
	var missing []acknowledged
	newest := time.Duration(0)
	for _, a := range c.acked {
		if !have[a.id] && !c.excused[a.id] {
			missing = append(missing, a)
		}
		if a.epoch < s.db.epoch {
			newest = max(newest, a.at)
		}
	}
	if len(missing) == 0 {
		return
	}
	shown, approved := c.approved(s.db.epoch)
	if span, told := newest-missing[0].at, c.told(s.db.epoch); span > told {
		c.violate("RPO", "%s at epoch %d has not the acknowledged writes of %v %s, and its run reports %v", s.name(), s.db.epoch, span, when, told)
	}
	if span := newest - missing[0].at; approved && span <= shown {
		for _, a := range missing {
			c.excused[a.id] = true
		}
		return
	}
	c.violate("I2", "%s at epoch %d has not %d acknowledged writes %s, the oldest of %.3fs at epoch %d (approved %v, up to %v)",
		s.name(), s.db.epoch, len(missing), when, missing[0].at.Seconds(), missing[0].epoch, approved, shown)
}

// approved is the loss that a person has accepted for an epoch.
func (c *checker) approved(epoch int64) (accepted time.Duration, approved bool) {
	for r := range c.movers(epoch) {
		for _, a := range c.w.truth.approvals {
			if agrees(a, r) && a.Spec.AcceptLoss != nil && (a.Spec.Run == r.Name || c.w.plans.shows(a.Spec.Run, r, epoch)) {
				if a.Spec.AcceptLoss.Extent == "" {
					c.result.Bounded++
				}
				accepted, approved = max(accepted, time.Duration(a.Spec.AcceptLoss.Seconds)*time.Second), true
			}
		}
	}
	return accepted, approved
}

// told is the loss that the run of an epoch reports.
func (c *checker) told(epoch int64) time.Duration {
	for _, rd := range c.movers(epoch) {
		if rd.LossSeconds != nil {
			return time.Duration(*rd.LossSeconds) * time.Second
		}
	}
	return math.MaxInt64
}

// movers are the runs that move this lane's dataset to an epoch, aborted ones left out,
// with what each says of it.
func (c *checker) movers(epoch int64) iter.Seq2[*v1alpha1.RecoveryRun, v1alpha1.RunDataset] {
	return func(yield func(*v1alpha1.RecoveryRun, v1alpha1.RunDataset) bool) {
		for _, r := range c.w.truth.runs {
			for _, rd := range r.Status.Datasets {
				moves := rd.Name == c.lane.dataset().Name && rd.Epoch == epoch && r.Status.Phase != v1alpha1.RunAborted
				if moves && !yield(r, rd) {
					return
				}
			}
		}
	}
}

// agrees is true for an approval of a run, or of the plan's run that made it; also for
// one that lets it go on with a greater loss.
func agrees(a *v1alpha1.Approval, r *v1alpha1.RecoveryRun) bool {
	steers := a.Spec.Step != "" && a.Spec.Step != "approve" && (a.Spec.Step != v1alpha1.StepResume || a.Spec.AcceptLoss == nil)
	return !steers && a.Spec.Decision == v1alpha1.DecisionApprove && (a.Spec.Run == r.Name || r.Spec.Parent != "" && a.Spec.Run == r.Spec.Parent)
}

func (c *checker) renewed(clusters []string) {
	if c.w.now-c.anyRenewal > c.w.lease.TTL/2 {
		c.steady = c.w.now
	}
	c.anyRenewal = c.w.now
	for _, name := range clusters {
		if c.w.now-c.lastRenewal[name] > onItsWay {
			c.renewedBefore[name] = c.lastRenewal[name]
		}
		if last, ever := c.lastRenewal[name]; ever && c.w.now-last > c.w.lease.OverAfter() {
			c.back[name] = c.w.now
			// A member counts from when it applied the last renewal, which may be that much
			// later: the last ones of a dead leader are committed by the next.
			if c.w.now-last > c.w.lease.OverAfter()+c.w.lease.TTL/2 && last > c.steady {
				c.lapsed[name] = last
			}
		}
		c.lastRenewal[name] = c.w.now
	}
}

// onItsWay is how long a write may take from the leader's look to its commit.
const onItsWay = 60 * time.Millisecond

// renewal is the newest one that a decision which is committed now must know of.
func (c *checker) renewal(name string) time.Duration {
	if c.w.now-c.lastRenewal[name] > onItsWay {
		return c.lastRenewal[name]
	}
	return c.renewedBefore[name]
}

// carried is called before an effector does anything: I5.
func (c *checker) carried(s *site, cmd failover.Command) {
	if cmd.Verb == failover.VerbPromote && strings.HasPrefix(cmd.Step, "promote.") {
		c.gate(cmd.Run, "PROMOTE is carried out", "AfterFence", "BeforePromote")
	}
	if cmd.Epoch < c.highest[s.id] && cmd.Verb != failover.VerbProbe && cmd.Verb != failover.VerbDrillStop {
		c.violate("I5", "%s carries out %s at epoch %d after it has seen epoch %d", s.name(), cmd.Verb, cmd.Epoch, c.highest[s.id])
	}
	c.highest[s.id] = max(c.highest[s.id], cmd.Epoch)
	if d := c.unit().dataset; cmd.Epoch > d.Status.Epoch {
		c.violate("I4", "%s carries out %s at epoch %d, but only %d is committed", s.name(), cmd.Verb, cmd.Epoch, d.Status.Epoch)
	}
}

// committed is called for every write of the true log.
func (c *checker) committed(old, obj metav1.Object) {
	switch x := obj.(type) {
	case *v1alpha1.Dataset:
		if o, ok := old.(*v1alpha1.Dataset); ok && o != nil {
			c.dataset(o, x)
		}
	case *v1alpha1.RecoveryRun:
		o, _ := old.(*v1alpha1.RecoveryRun)
		c.run(o, x)
	}
}

// dataset checks one committed change of the role: I4, I5, I6.
func (c *checker) dataset(o, n *v1alpha1.Dataset) {
	a, b := o.Status, n.Status
	if a.Phase != b.Phase || a.Epoch != b.Epoch {
		c.w.trace("committed: epoch %d %q -> epoch %d %q, primary %s, sync set %v", a.Epoch, a.Phase, b.Epoch, b.Phase, b.Primary, b.SyncSet)
	}
	if b.Epoch < a.Epoch || b.Epoch > a.Epoch+1 {
		c.violate("I5", "the committed epoch goes from %d to %d", a.Epoch, b.Epoch)
	}
	if b.Epoch == a.Epoch && b.Primary != a.Primary {
		c.violate("I5", "the primary changes from %s to %s within epoch %d", a.Primary, b.Primary, b.Epoch)
	}
	if a.Phase != b.Phase && !slices.Contains(legal[[2]v1alpha1.DatasetPhase{a.Phase, b.Phase}], b.Epoch-a.Epoch) {
		c.violate("I6", "the dataset goes from %q at epoch %d to %q at %d", a.Phase, a.Epoch, b.Phase, b.Epoch)
	}
	if a.Phase == v1alpha1.DatasetSteady && b.Phase == v1alpha1.DatasetFencing {
		c.lossy[b.Epoch] = !slices.Contains(a.SyncSet, b.Primary)
		c.automatic(a, b)
	}
	if r := c.w.truth.runs[b.Run]; a.Phase == v1alpha1.DatasetPromoting && r != nil && r.Spec.InsteadOf != "" {
		c.instead(r, a, b)
	} else {
		c.planned(a, b)
	}
	c.homeward(a, b)
	c.whole(a, b)
	if a.Phase != b.Phase {
		c.gates(a, b)
		c.undrilled(b)
	}
	if b.Phase == v1alpha1.DatasetFencing || b.Phase == v1alpha1.DatasetClosing {
		c.took[b.Run] = true
		if a.Phase == v1alpha1.DatasetSteady {
			c.movedAt = c.w.now
		}
	}
	c.attested(a, b)
}

// legal are the changes of a dataset's phase, with by how much the epoch grows.
var legal = map[[2]v1alpha1.DatasetPhase][]int64{
	{v1alpha1.DatasetForming, v1alpha1.DatasetPromoting}: {1},
	{v1alpha1.DatasetSteady, v1alpha1.DatasetFencing}:    {1},
	{v1alpha1.DatasetFencing, v1alpha1.DatasetPromoting}: {0, 1}, // 1: a switchover returns
	{v1alpha1.DatasetPromoting, v1alpha1.DatasetSteady}:  {0},
	{v1alpha1.DatasetSteady, v1alpha1.DatasetClosing}:    {0},
	{v1alpha1.DatasetClosing, v1alpha1.DatasetSteady}:    {0},
	{v1alpha1.DatasetClosing, v1alpha1.DatasetFencing}:   {1},
	{v1alpha1.DatasetPromoting, v1alpha1.DatasetFencing}: {1}, // a switchover returns, or another copy is taken
}

// planned judges the changes that only a switchover makes.
func (c *checker) planned(a, b v1alpha1.DatasetStatus) {
	if b.Epoch == a.Epoch || a.Phase == v1alpha1.DatasetForming || a.Phase == v1alpha1.DatasetSteady {
		return
	}
	switch {
	case a.Phase == v1alpha1.DatasetClosing:
		if source := c.lane.sites[siteOf(a.Primary)]; source.db.running && source.db.primary {
			c.violate("ban", "epoch %d is committed while %s accepts writes", b.Epoch, a.Primary)
		}
		c.lost(c.lane.sites[siteOf(b.Primary)], fmt.Sprintf("when epoch %d was committed for it", b.Epoch))
	case b.Primary != a.PreviousPrimary:
		c.violate("I6", "epoch %d returns to %s, the source was %s", b.Epoch, b.Primary, a.PreviousPrimary)
	case a.Phase == v1alpha1.DatasetFencing && c.promoted[a.Epoch] > 0:
		c.violate("I1", "%s takes the role back without a fence, and %s was promoted at epoch %d", b.Primary, a.Primary, a.Epoch)
	}
}

// automatic judges a decision that nobody approved: I2 and I4. The window has
// some slack, because the decision is a little older than its commit.
func (c *checker) automatic(a, b v1alpha1.DatasetStatus) {
	r := c.w.truth.runs[b.Run]
	if r == nil {
		c.violate("I6", "epoch %d was committed for run %q, which does not exist", b.Epoch, b.Run)
		return
	}
	if r.Status.Timeline.ApprovedAt != nil || slices.ContainsFunc(c.w.truth.approvals, func(a *v1alpha1.Approval) bool { return agrees(a, r) }) {
		return
	}
	if r.Spec.Action.Planned() {
		c.violate("I6", "switchover %s commits epoch %d without closing the source", r.Name, b.Epoch)
	}
	if r.Spec.Requester != "" {
		if !slices.Contains(a.SyncSet, b.Primary) {
			c.violate("I2", "%s is made primary without approval and is not in the sync set %v", b.Primary, a.SyncSet)
		}
		return
	}
	if !slices.Contains(a.SyncSet, b.Primary) {
		c.violate("I2", "%s is made primary without approval and is not in the sync set %v", b.Primary, a.SyncSet)
	}
	over := c.w.lease.OverAfter()
	lostFor := func(name string) time.Duration { return c.w.now - c.renewal(name) - over }
	from := lostFor(a.Primary)
	if from < -time.Second {
		c.violate("I4", "%s is replaced although its lease was renewed %.3fs ago", a.Primary, (c.w.now - c.lastRenewal[a.Primary]).Seconds())
	}
	for _, name := range places {
		other := lostFor(name)
		if name != a.Primary && other > 500*time.Millisecond && absolute(other-from) < c.w.breakerWindow()-time.Second {
			c.violate("I4", "%s is replaced automatically although %s was lost within a minute too", a.Primary, name)
		}
		if at, ever := c.lapsed[name]; ever && name != a.Primary && c.known(at) &&
			absolute(c.renewal(a.Primary)-at) < c.w.breakerWindow()-time.Second {
			c.violate("I4", "%s is replaced automatically although %s was lost from %.3fs to %.3fs", a.Primary, name, at.Seconds(), c.back[name].Seconds())
		}
	}
}

// known is true if every member that believes to lead has been up since at.
func (c *checker) known(at time.Duration) bool {
	return !slices.ContainsFunc(c.w.members[:], func(m *member) bool { return m.believes && m.started > at })
}

func (w *world) breakerWindow() time.Duration { return time.Minute }

func absolute(d time.Duration) time.Duration { return max(d, -d) }

// order of the phases; a paused run keeps its place.
var order = []v1alpha1.RunPhase{v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunAwaitingApproval, v1alpha1.RunClosing, v1alpha1.RunFencing,
	v1alpha1.RunPromoting, v1alpha1.RunRouting, v1alpha1.RunVerifying, v1alpha1.RunCompleted}

// run checks one committed change of a run: I6.
func (c *checker) run(o, n *v1alpha1.RecoveryRun) {
	if o == nil {
		c.result.Runs++
		c.w.trace("committed: run %s", n.Name)
		for _, r := range c.w.truth.runs {
			// A person may order one in the moment in which the engine makes one, and a
			// member that stands still may have proposed it seconds before it is committed:
			// the older of the two goes first.
			together := n.CreationTimestamp.Sub(r.CreationTimestamp.Time) < 5*time.Second
			if c.moves(r) && c.moves(n) && !failover.Finished(r.Status.Phase) && !together && n.Spec.InsteadOf != r.Name {
				c.violate("I6", "run %s is created while %s is %s", n.Name, r.Name, r.Status.Phase)
			}
		}
		return
	}
	if o.Status.Phase != n.Status.Phase {
		c.w.trace("committed: run %s is %s %s %s", n.Name, n.Status.Phase, n.Status.Reason, n.Status.Message)
	}
	if failover.Finished(o.Status.Phase) && o.Status.Phase != n.Status.Phase {
		c.violate("I6", "run %s goes on after %s", n.Name, o.Status.Phase)
	}
	i, j := slices.Index(order, o.Status.Phase), slices.Index(order, n.Status.Phase)
	if i >= 0 && j >= 0 && j < i {
		c.violate("I6", "run %s goes back from %s to %s", n.Name, o.Status.Phase, n.Status.Phase)
	}
	if o.Status.Phase == v1alpha1.RunReturning && !slices.Contains([]v1alpha1.RunPhase{v1alpha1.RunReturning, v1alpha1.RunAborted, v1alpha1.RunRouting}, n.Status.Phase) {
		c.violate("I6", "run %s goes on to %s after it had decided to return", n.Name, n.Status.Phase)
	}
	if n.Status.Phase == v1alpha1.RunAborted && n.Spec.Action.Planned() {
		c.returned(o, n)
	}
	if n.Status.Phase == v1alpha1.RunAborted {
		c.stoppedByHook(n)
	}
	if n.Spec.Action == v1alpha1.ActionDrill {
		c.drilled(o, n)
	} else if n.Status.Phase == v1alpha1.RunCompleted && o.Status.Phase != v1alpha1.RunCompleted {
		c.finished(n)
	}
}

// moves is true for a move of this lane's application.
func (c *checker) moves(r *v1alpha1.RecoveryRun) bool {
	return r.Spec.Application == reference(c.lane.id) && r.Spec.Action != v1alpha1.ActionDrill
}

// returned: an abort leaves the source primary.
func (c *checker) returned(o, n *v1alpha1.RecoveryRun) {
	c.result.Returns++
	d := c.unit().dataset.Status
	took := o.Status.Phase == v1alpha1.RunRouting || o.Status.Phase == v1alpha1.RunVerifying
	if took && n.Status.Reason == failover.ReasonTargetLost || n.Status.Timeline.ClosingAt == nil {
		return // it ends after it moved the role, or before it began to
	}
	source := n.Spec.From.Cluster
	if source == "" && len(n.Status.Datasets) > 0 { // a run that leaves a place
		source = n.Status.Datasets[0].PreviousPrimary
	}
	if d.Primary != source || d.Phase != v1alpha1.DatasetSteady || d.Run == n.Name {
		c.violate("abort", "switchover %s is aborted (%s: %s) with %s as primary in phase %q, the source was %s",
			n.Name, n.Status.Reason, n.Status.Message, d.Primary, d.Phase, source)
	}
}

// finished: a completed run has skipped no step.
func (c *checker) finished(r *v1alpha1.RecoveryRun) {
	steps := []string{"fence", "promote", "route", "verify"}
	if r.Spec.Action.Planned() {
		c.result.Switchovers++
		if r.Spec.Action == v1alpha1.ActionFailback {
			c.result.Failbacks++
		}
		steps = append(steps, "close", "catch-up", "open")
	}
	for _, name := range steps {
		if !slices.ContainsFunc(r.Status.Steps, func(s v1alpha1.RunStep) bool { return s.Name == name && s.State == v1alpha1.StepSucceeded }) {
			c.violate("I6", "run %s completed without step %s", r.Name, name)
		}
	}
	c.gate(r.Name, "it is completed", hookPoints[3:]...)
	for _, rd := range r.Status.Datasets {
		if d := c.unit().dataset; d.Status.Epoch == rd.Epoch && (c.promoted[rd.Epoch] == 0 || rd.FenceProof == "") {
			c.violate("I6", "run %s completed, but epoch %d was promoted %d times with proof %q", r.Name, rd.Epoch, c.promoted[rd.Epoch], rd.FenceProof)
		}
	}
}

// atEnd: after everything was healed, the dataset serves, nothing acknowledged
// is missing, and no run is stuck but where a person is asked.
func (c *checker) atEnd() {
	d := c.unit().dataset
	c.result.Phase = d.Status.Phase
	for _, name := range sorted(c.w.truth.runs) {
		r := c.w.truth.runs[name]
		if !r.Spec.ForPlan() && r.Spec.Application != reference(c.lane.id) {
			continue
		}
		if r.Status.Reason == failover.ReasonReplaced { // the run that was ordered instead is judged
			continue
		}
		asks := r.Status.Phase == v1alpha1.RunAwaitingApproval || r.Status.Phase == v1alpha1.RunPaused && strings.Contains(r.Status.Message, "tripodctl approve")
		switch {
		case asks, c.w.until-begun(r).Sub(epochZero) < 15*time.Second: // it has just begun
			return
		case r.Status.Reason == failover.ReasonNoTarget && c.othersDiverged(d.Status.Primary):
		case !failover.Finished(r.Status.Phase):
			c.violate("liveness", "run %s is still %s at the end: %s %s", name, r.Status.Phase, r.Status.Reason, r.Status.Message)
			return
		}
	}
	if d.Status.Phase != v1alpha1.DatasetSteady {
		c.violate("liveness", "the dataset is %q at the end", d.Status.Phase)
		return
	}
	p := c.lane.sites[siteOf(d.Status.Primary)]
	if !p.db.running || !p.db.primary || p.db.epoch != d.Status.Epoch {
		c.violate("liveness", "%s is not the running primary of epoch %d at the end", p.name(), d.Status.Epoch)
		return
	}
	c.lost(p, "at the end")
	if c.w.now-c.lastAck > 10*time.Second {
		c.violate("liveness", "no write was acknowledged since %.3fs", c.lastAck.Seconds())
	}
	if got := c.unit().service.Status.Active; len(c.unit().app.Spec.Services) > 0 && (len(got) != 1 || got[0] != p.name()) {
		c.violate("liveness", "the route leads to %v, the primary is %s", got, p.name())
	}
}

// othersDiverged: nobody can take over until a person has approved a DISCARD, which
// nobody does here.
func (c *checker) othersDiverged(primary string) bool {
	for _, s := range c.lane.sites {
		if s.name() != primary && !s.db.diverged {
			return false
		}
	}
	return true
}
