package failover

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Pace of commands that belong to no run.
const (
	formEvery   = time.Second
	followEvery = 5 * time.Second
	syncEvery   = 2 * time.Second
)

// protection is one call of Protect: was is committed, now what it becomes.
type protection struct {
	*Snapshot
	det      Detection
	was, now *v1alpha1.Dataset
	app      *v1alpha1.Application
	commands []Command
	// refusal is why the first primary could not be formed, or empty.
	refusal string
}

// Protect keeps one dataset as its spec declares it while no run moves it: it
// names the first primary, makes the other members replicas of the primary,
// grows and shrinks the committed sync set (safety.md section 5), and reports
// what was observed.
func Protect(s *Snapshot, det Detection, d *v1alpha1.Dataset) (*v1alpha1.Dataset, []Command) {
	p := &protection{Snapshot: s, det: det, was: d, now: d.DeepCopy(), app: s.applicationOf(d)}
	switch {
	case d.Status.Run != "":
		p.rescue() // a run owns the role change; members are still reported
	case d.Status.Phase == v1alpha1.DatasetForming:
		p.form()
	case d.Status.Phase == v1alpha1.DatasetPromoting:
		p.formed()
	case d.Status.Phase == v1alpha1.DatasetSteady:
		p.open()
		p.now.Status.Failsafe = p.was.Status.Failsafe || p.offerable()
		p.syncSet()
		p.follow()
	}
	p.members()
	p.holds()
	p.conditions()
	p.now.Status.ObservedGeneration = d.Generation
	return p.now, p.commands
}

func (p *protection) send(c Command, step string, every time.Duration) {
	c.Dataset, c.Epoch, c.Primary = key(p.was), p.was.Status.Epoch, p.was.Status.Primary
	c.Run = "protect." + p.was.Namespace + "." + p.was.Name
	c.Step, c.Every, c.Bound = fmt.Sprintf("%s.%s.%d", step, c.Cluster, c.Epoch), every, p.Config.Directive
	c.ID = c.Run + "/" + c.Step
	c.Revision = revision(p.was)
	p.commands = append(p.commands, c)
}

// form names the first member the primary of epoch 1. There is no old primary
// to fence: no grant ever named the role.
func (p *protection) form() {
	first := p.was.Spec.Members[0].Cluster
	if p.det.Classes[first] != Healthy {
		return
	}
	st := &p.now.Status
	st.Primary, st.Epoch, st.Phase = first, 1, v1alpha1.DatasetPromoting
}

// formed ends the first formation when the promotion is proven by a write.
func (p *protection) formed() {
	c := Command{Cluster: p.was.Status.Primary, Verb: VerbPromote, SyncSet: []string{p.was.Status.Primary}}
	p.send(c, "form", formEvery)
	r, ok := p.Results[p.commands[len(p.commands)-1].ID]
	switch {
	case !ok:
	case r.Outcome == Done:
		p.commands = nil
		settle(p.now, nil)
	case r.Outcome == Refused:
		p.refusal = r.Message
	}
}

// rescue opens a dataset that a switchover has closed when the run is gone: it
// was deleted, or its application was. Before the epoch is committed that is
// safe at any moment.
func (p *protection) rescue() {
	st := &p.now.Status
	if r := p.run(st.Run); r != nil && !Finished(r.Status.Phase) {
		return
	}
	if st.Phase == v1alpha1.DatasetClosing || st.Phase == v1alpha1.DatasetSteady {
		st.Phase, st.CatchUp = v1alpha1.DatasetSteady, nil
		st.Run, st.ReturnedRun = "", st.Run
	}
}

// open lets a primary write that a switchover has closed and that has its role
// still: the run that closed it has ended without this.
func (p *protection) open() {
	st := p.was.Status
	if o, ok := p.fresh(p.was, st.Primary); ok && o.State == v1alpha1.StateClosed {
		p.send(Command{Cluster: st.Primary, Verb: VerbPromote, SyncSet: append([]string{st.Primary}, st.SyncTarget...)}, "open", formEvery)
	}
}

// primary is the fresh observation of the primary acting at the current epoch.
func (p *protection) primary() (Observed, bool) {
	o, ok := p.fresh(p.was, p.was.Status.Primary)
	return o, ok && o.Role == v1alpha1.RolePrimary && o.State == v1alpha1.StateRunning && o.Epoch == p.was.Status.Epoch
}

// syncSet keeps the committed sync set (safety.md section 5), in three moves
// that are each one commit before anyone acts on them:
//
//   - the target, whom the primary shall wait for, is committed, and only then
//     sent, under the revision that orders it at the effector;
//   - a standby joins the sync set when the primary has answered that it waits
//     for the target of this generation, and a later observation says that the
//     standby has caught up: what was acknowledged before is there, and what is
//     acknowledged after waits for it;
//   - a standby leaves target and set in one commit, and only then may the
//     primary stop waiting. ZeroLoss never lets one leave: its writes wait.
func (p *protection) syncSet() {
	primary, ok := p.primary()
	if !ok {
		return
	}
	st := &p.now.Status
	target := p.target(primary)
	if !slices.Equal(target, st.SyncTarget) {
		st.SyncTarget = target
		st.SyncGeneration++
		st.SyncSet = slices.DeleteFunc(slices.Clone(st.SyncSet), func(name string) bool {
			return name != st.Primary && !slices.Contains(target, name)
		})
		return
	}
	have := slices.Clone(primary.Acknowledges)
	slices.Sort(have)
	id, confirmed := p.sendSyncSet(target)
	if confirmed && slices.Equal(have, target) || !confirmed && slices.Equal(have, target) && p.allIn(target) {
		p.commands = slices.DeleteFunc(p.commands, func(c Command) bool { return c.ID == id })
	}
	if !confirmed || primary.Age >= p.Uptime-p.Results[id].At {
		return
	}
	for _, name := range target {
		if !slices.Contains(st.SyncSet, name) && slices.Contains(have, name) && slices.Contains(primary.CaughtUp, name) {
			st.SyncSet = append(st.SyncSet, name)
		}
	}
}

// sendSyncSet orders the committed target and reports whether it was answered.
func (p *protection) sendSyncSet(target []string) (string, bool) {
	c := Command{Cluster: p.was.Status.Primary, Verb: VerbSetSyncSet, SyncSet: append([]string{p.was.Status.Primary}, target...)}
	p.send(c, fmt.Sprintf("sync-%d", p.was.Status.SyncGeneration), syncEvery)
	id := p.commands[len(p.commands)-1].ID
	r, ok := p.Results[id]
	return id, ok && r.Outcome == Done
}

func (p *protection) allIn(target []string) bool {
	return !slices.ContainsFunc(target, func(name string) bool { return !inSyncSet(p.was, name) })
}

// target is whom the primary should wait for: the sorted members that it waits
// for now and may not leave, and those that can join.
func (p *protection) target(primary Observed) []string {
	var target []string
	for _, m := range p.was.Spec.Members {
		if m.Cluster == p.was.Status.Primary || p.was.Spec.Protection == v1alpha1.Asynchronous {
			continue
		}
		if slices.Contains(p.was.Status.SyncTarget, m.Cluster) {
			if p.was.Spec.Protection == v1alpha1.ZeroLoss || !p.detached(primary, m.Cluster) {
				target = append(target, m.Cluster)
			}
		} else if p.joinable(m, primary) {
			target = append(target, m.Cluster)
		}
	}
	slices.Sort(target)
	return target
}

// detached is true for a standby that is lost or has had no stream for long
// enough. How long only paces the change; it is safe at any pace, because a new
// generation needs its own answer and an observation after that.
func (p *protection) detached(primary Observed, name string) bool {
	if slices.Contains(primary.Streaming, name) {
		return false
	}
	if p.det.Classes[name] == Lost {
		return true
	}
	ms := memberStatus(p.was, name)
	return ms != nil && ms.State != v1alpha1.StateStreaming && p.Now.Sub(ms.ObservedAt.Time) >= p.Config.Detach
}

// joinable is true for a synchronous member that streams and has so little to
// catch up that the primary's writes may wait for it.
func (p *protection) joinable(m v1alpha1.DatasetMember, primary Observed) bool {
	if m.Link == v1alpha1.LinkAsynchronous || !slices.Contains(primary.Streaming, m.Cluster) {
		return false
	}
	if slices.Contains(primary.CaughtUp, m.Cluster) {
		return true
	}
	o, ok := p.fresh(p.was, m.Cluster)
	return ok && o.State == v1alpha1.StateStreaming && o.LagBytes != nil && *o.LagBytes <= p.Config.SyncLagBytes
}

// follow makes every other member that can be reached a replica of the current
// epoch. A copy that has diverged is left alone until a person has approved
// what would be discarded.
func (p *protection) follow() {
	if _, ok := p.primary(); !ok {
		return
	}
	for _, m := range p.was.Spec.Members {
		if m.Cluster == p.was.Status.Primary || p.det.Classes[m.Cluster] != Healthy {
			continue
		}
		o, ok := p.fresh(p.was, m.Cluster)
		switch {
		case !ok:
		case o.State == v1alpha1.StateDiverged:
			if p.discardApproved(m.Cluster) {
				p.send(Command{Cluster: m.Cluster, Verb: VerbDiscard}, "discard", followEvery)
			}
		case o.State == v1alpha1.StateCopying:
		case o.Epoch == p.was.Status.Epoch && o.Role == v1alpha1.RoleReplica &&
			(o.State == v1alpha1.StateStreaming || o.State == v1alpha1.StateCatchingUp):
		default:
			p.send(Command{Cluster: m.Cluster, Verb: VerbFollow}, "follow", followEvery)
		}
	}
}

// DiscardSubject is what an Approval names (spec.run) to let a diverged copy be
// copied anew from the primary of epoch; what it held is kept aside.
func DiscardSubject(d *v1alpha1.Dataset, cluster string) string {
	return v1alpha1.Discard{Namespace: d.Namespace, Dataset: d.Name, Cluster: cluster, Epoch: d.Status.Epoch}.Subject()
}

func (p *protection) discardApproved(cluster string) bool {
	policy := v1alpha1.ApprovalPolicy{Required: 1, ExpireSeconds: 900}
	return CountApprovals(p.Snapshot, policy, DiscardSubject(p.was, cluster), "", "", time.Time{}, nil).Enough
}
