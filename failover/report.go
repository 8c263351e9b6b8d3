package failover

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// members reports the newest observation of each copy. What only jitters
// (position, lag, age) is written along with a change, and else rarely.
func (p *protection) members() {
	var next []v1alpha1.DatasetMemberStatus
	for _, m := range p.was.Spec.Members {
		ms := v1alpha1.DatasetMemberStatus{Cluster: m.Cluster, Role: p.roleOf(m.Cluster), State: v1alpha1.StateUnknown, Guarded: v1alpha1.GuardUnknown}
		if old := memberStatus(p.now, m.Cluster); old != nil {
			ms = *old.DeepCopy()
			ms.Role = p.roleOf(m.Cluster)
		}
		if o, ok := p.Observed[Copy{key(p.was), m.Cluster}]; ok && o.Age <= p.Config.Fresh {
			ms = p.observed(ms, o)
		} else if ms.State != v1alpha1.StateUnknown && p.det.Classes[m.Cluster] != Healthy {
			// The guard's coverage stays as last known: it is needed to fence.
			ms.State, ms.Message = v1alpha1.StateUnknown, "not observed: the cluster is "+string(p.det.Classes[m.Cluster])
		}
		next = append(next, ms)
	}
	p.former()
	p.now.Status.Members = next
}

// tell writes into a dataset that a run changes what people read of the change: the
// roles of its copies and its conditions. Else that would be a write of its own.
func tell(s *Snapshot, det Detection, was, now *v1alpha1.Dataset) {
	p := &protection{Snapshot: s, det: det, was: was, now: now}
	for i := range now.Status.Members {
		ms := &now.Status.Members[i]
		ms.Role = p.roleOf(ms.Cluster)
	}
	p.conditions()
}

// former remembers who was a member at this epoch: the primary's last grant may name
// it as one whose pledge is needed, until a role change has outlived that grant.
func (p *protection) former() {
	st := &p.now.Status
	st.FormerMembers = slices.DeleteFunc(st.FormerMembers, func(name string) bool { return member(p.was, name) != nil })
	for _, ms := range st.Members {
		if member(p.was, ms.Cluster) == nil && !slices.Contains(st.FormerMembers, ms.Cluster) {
			st.FormerMembers = append(st.FormerMembers, ms.Cluster)
		}
	}
}

func (s *Snapshot) observed(ms v1alpha1.DatasetMemberStatus, o Observed) v1alpha1.DatasetMemberStatus {
	old := ms
	ms.State, ms.Epoch, ms.Guarded, ms.Copy = o.State, o.Epoch, o.Guarded, s.copyState(ms.Copy, o)
	ms.Acknowledges, ms.Message, ms.Timeline = slices.Clone(o.Acknowledges), o.Message, o.Timeline
	at := metav1.NewMicroTime(s.Now.Add(-o.Age).Truncate(time.Microsecond))
	changed := differ(&ms, &old)
	if !changed && at.Sub(old.ObservedAt.Time) < s.reportEvery() {
		return old
	}
	if !changed && old.Position == o.Position && equal(old.LagBytes, o.LagBytes) {
		return old
	}
	ms.Position, ms.LagBytes, ms.LagSeconds, ms.ObservedAt = o.Position, o.LagBytes, o.LagSeconds, at
	return ms
}

// reported is true when a status differs from what it was in nothing but what was seen:
// an account for people, that no decision waits for and any later turn writes as well.
// What the volume of a copy holds, and whether it is guarded, is more: the next leader
// rests on it.
func reported(now, was *v1alpha1.DatasetStatus) bool {
	if len(now.Members) != len(was.Members) {
		return false
	}
	same := now.DeepCopy()
	same.Conditions, same.ObservedGeneration = was.Conditions, was.ObservedGeneration
	for i := range same.Members {
		ms, old := &same.Members[i], &was.Members[i]
		ms.State, ms.Epoch, ms.Timeline, ms.Message, ms.ObservedAt = old.State, old.Epoch, old.Timeline, old.Message, old.ObservedAt
		ms.Position, ms.LagBytes, ms.LagSeconds, ms.Acknowledges = old.Position, old.LagBytes, old.LagSeconds, old.Acknowledges
	}
	return !differ(same, was)
}

// copyState is what an observation says of a volume. A copy that does not run
// says nothing by that: it may be a torn one. Its guard knows a volume that is
// empty now, whatever was on it before. That a copy runs which was known to be none
// counts when it was said after that: a heartbeat from before it was made anew may
// come late, to this leader or from before its term, and a copy that is torn then
// says nothing any more.
func (s *Snapshot) copyState(was v1alpha1.CopyState, o Observed) v1alpha1.CopyState {
	none := was == v1alpha1.CopyPartial || was == v1alpha1.CopyEmpty
	switch {
	case o.Copy == v1alpha1.CopyEmpty || o.Copy == v1alpha1.CopyPartial:
		return o.Copy
	case o.State == v1alpha1.StateCopying:
		return v1alpha1.CopyPartial
	case !o.State.Runs(), none && min(o.Runs, s.Fleet.Watching-o.Age) < s.Config.transit():
		return was
	}
	return v1alpha1.CopyWhole
}

// incomplete says why the copy of d at cluster is none to promote, or is empty. The
// committed word outlives the leader that saw the copy being made; the newest
// observation may be ahead of it.
func (s *Snapshot) incomplete(d *v1alpha1.Dataset, cluster string) string {
	var state v1alpha1.CopyState
	if ms := memberStatus(d, cluster); ms != nil {
		state = ms.Copy
	}
	if o, ok := s.Observed[Copy{key(d), cluster}]; ok {
		state = s.copyState(state, o)
	}
	switch {
	case state == v1alpha1.CopyEmpty:
		return "has an empty volume, and no copy of dataset " + key(d).String()
	case state == v1alpha1.CopyPartial:
		return "holds a part of a copy of dataset " + key(d).String() + " that is being made anew"
	case state == "" && !inSyncSet(d, cluster):
		return "was never seen with a whole copy of dataset " + key(d).String()
	}
	return ""
}

// behind says why the copy of d at cluster is none to promote yet, or is empty: it has
// not followed the present primary, which is well, and is told to. It may be made anew
// in the next moment, and the primary that has everything would be fenced for it.
func (s *Snapshot) behind(det Detection, d *v1alpha1.Dataset, cluster string) string {
	o, ok := s.Observed[Copy{key(d), cluster}]
	if !ok || o.Epoch >= d.Status.Epoch || d.Status.Phase != v1alpha1.DatasetSteady || det.Classes[d.Status.Primary] != Healthy {
		return ""
	}
	return fmt.Sprintf("has not followed %s, the primary of dataset %s since epoch %d, yet", d.Status.Primary, key(d), d.Status.Epoch)
}

// reportEvery is how often positions alone are written to a dataset's status: five
// datasets a second in the whole fleet, because each is a write of the hub. Who decides
// goes by the heartbeats.
func (s *Snapshot) reportEvery() time.Duration {
	return max(30*time.Second, time.Duration(len(s.Datasets))*time.Second/5)
}

func equal(a, b *int64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func (p *protection) roleOf(cluster string) v1alpha1.Role {
	st := p.now.Status
	switch {
	case st.Primary == cluster && st.Phase != v1alpha1.DatasetForming && st.Phase != v1alpha1.DatasetFencing:
		return v1alpha1.RolePrimary
	case st.Phase == v1alpha1.DatasetForming, st.Phase == v1alpha1.DatasetFencing && st.PreviousPrimary == cluster:
		return v1alpha1.RoleNone
	}
	return v1alpha1.RoleReplica
}

func (p *protection) conditions() {
	available, reason, message := p.available()
	p.condition(v1alpha1.ConditionAvailable, available, reason, message)
	protected, reason, message := p.protected()
	p.condition(v1alpha1.ConditionProtected, protected, reason, message)
	if names := p.diverged(); len(names) > 0 {
		p.condition("Diverged", true, "NeedsApproval", fmt.Sprintf("%s holds writes that the primary does not have; to keep them aside and copy it anew: tripodctl approve %s",
			names[0], DiscardSubject(p.was, names[0])))
	} else {
		meta.RemoveStatusCondition(&p.now.Status.Conditions, "Diverged")
	}
}

func (p *protection) condition(kind string, is bool, reason, message string) {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	old := meta.FindStatusCondition(p.now.Status.Conditions, kind)
	c := metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: p.was.Generation,
		LastTransitionTime: metav1.NewTime(p.Now)}
	if old != nil && old.Status == status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	meta.SetStatusCondition(&p.now.Status.Conditions, c)
}

func (p *protection) available() (bool, string, string) {
	st := p.now.Status
	if st.Phase != v1alpha1.DatasetSteady {
		phase := string(st.Phase)
		if phase == "" {
			phase = "Forming"
		}
		if st.Phase == v1alpha1.DatasetClosing {
			return false, phase, fmt.Sprintf("a switchover has closed %s for writing: see run %s", st.Primary, st.Run)
		}
		if p.refusal != "" {
			return false, "FormationRefused", fmt.Sprintf("%s does not begin as the first primary: %s; if an earlier dataset of this name was there, give this one another name",
				st.Primary, p.refusal)
		}
		return false, phase, fmt.Sprintf("no primary serves while the dataset is %s; the next one is %q", phase, st.Primary)
	}
	if class := p.det.Classes[st.Primary]; class == Lost || class == Silent {
		return false, "Primary" + string(class), fmt.Sprintf("the primary's cluster %s is %s", st.Primary, class)
	}
	ms := memberStatus(p.now, st.Primary)
	if ms == nil || ms.State != v1alpha1.StateRunning || ms.Epoch != st.Epoch {
		return false, "PrimaryNotRunning", fmt.Sprintf("%s does not report a running primary at epoch %d: see status.members", st.Primary, st.Epoch)
	}
	return true, "PrimaryRuns", st.Primary + " serves"
}

func (p *protection) protected() (bool, string, string) {
	if p.was.Spec.Protection == v1alpha1.Asynchronous {
		return true, "Asynchronous", "no sync set is declared"
	}
	var missing []string
	for _, m := range p.was.Spec.Members {
		if m.Link != v1alpha1.LinkAsynchronous && !inSyncSet(p.now, m.Cluster) {
			missing = append(missing, m.Cluster)
		}
		if m.Cluster != p.now.Status.Primary && inSyncSet(p.now, m.Cluster) && p.det.Classes[m.Cluster] != Healthy {
			missing = append(missing, m.Cluster)
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		return false, "SyncSetIncomplete", fmt.Sprintf("no acknowledged write waits for, or writes wait in vain for: %s", strings.Join(slices.Compact(missing), ", "))
	}
	return true, "SyncSetComplete", "every synchronous member has every acknowledged write"
}

func (p *protection) diverged() []string {
	var names []string
	for _, ms := range p.now.Status.Members {
		if ms.State == v1alpha1.StateDiverged {
			names = append(names, ms.Cluster)
		}
	}
	return names
}
