package sim

import (
	"errors"
	"maps"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// objects is the hub's committed state. The objects themselves never change.
type objects struct {
	units     []unit
	plan      *v1alpha1.RecoveryPlan
	runs      map[string]*v1alpha1.RecoveryRun
	approvals []*v1alpha1.Approval
}

// entry of the Raft log: a renewal or a write.
type entry struct {
	revision int64 // after it was applied
	term     uint64
	renewed  []string
	steady   time.Duration
	write    metav1.Object
}

var (
	errConflict  = errors.New("the object was changed")
	errNotLeader = errors.New("not the leader, or no quorum")
	errUnknown   = errors.New("timed out: the write may have been done")
)

func (o *objects) apply(obj metav1.Object) {
	switch x := obj.(type) {
	case *v1alpha1.Dataset:
		o.unit(x).dataset = x
	case *v1alpha1.Application:
		o.unit(x).app = x
	case *v1alpha1.GlobalService:
		o.unit(x).service = x
	case *v1alpha1.RecoveryPlan:
		o.plan = x
	case *v1alpha1.RecoveryRun:
		o.runs = maps.Clone(o.runs)
		if o.runs == nil {
			o.runs = map[string]*v1alpha1.RecoveryRun{}
		}
		o.runs[x.Name] = x
	case *v1alpha1.Approval:
		o.approvals = append(o.approvals[:len(o.approvals):len(o.approvals)], x)
	}
}

func (o *objects) find(obj metav1.Object) metav1.Object {
	switch x := obj.(type) {
	case *v1alpha1.Dataset:
		return o.unit(x).dataset
	case *v1alpha1.Application:
		return o.unit(x).app
	case *v1alpha1.GlobalService:
		return o.unit(x).service
	case *v1alpha1.RecoveryRun:
		if r := o.runs[x.Name]; r != nil {
			return r
		}
	}
	return nil
}

// quorate is true when a member can reach a majority both ways, now.
func (w *world) quorate(id int) bool {
	if !w.members[id].works() {
		return false
	}
	n := 0
	for j := range centers {
		if w.members[j].works() && w.linked(id, j) && w.linked(j, id) {
			n++
		}
	}
	return n >= 2
}

// elect is Raft as an observer would see it: the true leader goes when it has no
// quorum for an election timeout, and a quorate member follows it.
func (w *world) elect() {
	w.after(50*time.Millisecond, w.elect)
	for _, m := range w.members {
		m.catchUp()
		if m.believes && w.leader != m.id && m.works() {
			term := m.term
			w.after(w.between(0, w.lease.RaftLease), func() {
				if m.term == term {
					m.stepDown()
				}
			})
		}
	}
	// A process that died and came back at once does not know that it led.
	if w.leader >= 0 && w.quorate(w.leader) && w.members[w.leader].believes {
		w.without = w.now
		return
	}
	if w.now-w.without < w.lease.RaftElection {
		return
	}
	if w.leader >= 0 {
		w.trace("leader %s has no quorum", places[w.leader])
	}
	w.leader = -1
	first := w.rng.IntN(centers)
	for i := range centers {
		id := (first + i) % centers
		if w.quorate(id) && w.chance(0.3) {
			w.leader, w.without = id, w.now
			w.term++
			w.result.Elections++
			w.trace("leader is %s, term %d", places[id], w.term)
			w.members[id].lead(w.term)
			return
		}
	}
}

// propose offers a log entry through a member. A renewal is committed only by
// the true leader with a quorum; a write is forwarded to it, so that a member
// which only believes that it leads can still write what it read long ago. An
// answer may be lost.
func (w *world) propose(m *member, e entry, done func(metav1.Object, error)) {
	term := m.term
	answer := func(o metav1.Object, err error) { m.local(func() { done(o, err) }) }
	w.after(w.between(2*time.Millisecond, 30*time.Millisecond), func() {
		leads := w.leader == m.id && term == w.term
		forwards := e.write != nil && w.leader >= 0 && m.works() && w.linked(m.id, w.leader) && w.linked(w.leader, m.id)
		if !leads && !forwards || !w.quorate(w.leader) {
			w.after(w.between(0, time.Second), func() { answer(nil, errNotLeader) })
			return
		}
		o, err := w.commit(e)
		if err == nil && w.chance(0.01) {
			err = errUnknown
		}
		answer(o, err)
	})
}

// commit appends to the true log; a write of an object that has changed since
// it was read fails.
func (w *world) commit(e entry) (metav1.Object, error) {
	if e.write != nil {
		old := w.truth.find(e.write)
		switch {
		case w.opt.Bug == NoConcurrencyControl:
		case old == nil && e.write.GetResourceVersion() != "":
			return nil, errConflict
		case old != nil && old.GetResourceVersion() != e.write.GetResourceVersion():
			return nil, errConflict
		}
		w.rev++
		e.write = copyOf(e.write)
		e.write.SetResourceVersion(strconv.FormatInt(w.rev, 10))
		w.judge(old, e.write)
		w.truth.apply(e.write)
		if o, ok := old.(*v1alpha1.Dataset); ok && w.grown != nil && len(w.first().dataset.Status.SyncSet) > max(1, len(o.Status.SyncSet)) {
			w.grown(w.first().dataset.Status)
		}
	} else {
		for _, l := range w.lanes {
			l.check.renewed(e.renewed)
		}
	}
	e.revision, e.term = w.rev, w.term
	w.log = append(w.log, e)
	if w.leader >= 0 {
		w.members[w.leader].catchUp()
	}
	return e.write, nil
}

func copyOf(o metav1.Object) metav1.Object {
	switch x := o.(type) {
	case *v1alpha1.Dataset:
		return x.DeepCopy()
	case *v1alpha1.Application:
		return x.DeepCopy()
	case *v1alpha1.GlobalService:
		return x.DeepCopy()
	case *v1alpha1.RecoveryRun:
		return x.DeepCopy()
	case *v1alpha1.Approval:
		return x.DeepCopy()
	case *v1alpha1.RecoveryPlan:
		return x.DeepCopy()
	}
	panic("sim: no such kind")
}

func (w *world) seedObjects() {
	var all []metav1.Object
	for _, l := range w.lanes {
		all = append(all, w.seedLane(l)...)
	}
	if w.opt.Plans {
		all = append(all, w.seedPlan())
	}
	for _, o := range all {
		w.rev++
		o.SetResourceVersion(strconv.FormatInt(w.rev, 10))
		w.truth.apply(o)
		w.log = append(w.log, entry{revision: w.rev, write: o})
	}
	// The hub has been in operation for long: the first leader has no grace to wait out.
	w.log = append(w.log, entry{revision: w.rev, renewed: places[:], steady: time.Hour})
}

func (w *world) seedLane(l *lane) []metav1.Object {
	protection := []v1alpha1.Protection{v1alpha1.ZeroLoss, v1alpha1.MaxAvailability}[w.rng.IntN(2)]
	hold, failback := w.policy()
	third := v1alpha1.LinkAsynchronous
	if w.opt.Pledges && w.chance(0.3) {
		third = v1alpha1.LinkSynchronous
	}
	meta := func(name types.NamespacedName) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}
	}
	d := &v1alpha1.Dataset{ObjectMeta: meta(l.dataset()), Spec: v1alpha1.DatasetSpec{Driver: "model", Protection: protection,
		Members: []v1alpha1.DatasetMember{{Cluster: places[0], Link: v1alpha1.LinkSynchronous}, {Cluster: places[1], Link: v1alpha1.LinkSynchronous},
			{Cluster: places[2], Link: third}}}}
	app := &v1alpha1.Application{ObjectMeta: meta(l.application()), Spec: v1alpha1.ApplicationSpec{Datasets: []string{d.Name}, Services: w.names(l),
		Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: hold, Failback: failback}}}
	app.Spec.DependsOn = w.needs(l)
	g := &v1alpha1.GlobalService{ObjectMeta: meta(l.application()), Spec: v1alpha1.GlobalServiceSpec{Host: app.Name + ".test", Mode: v1alpha1.ActiveOnly}}
	for _, p := range places {
		g.Spec.Endpoints = append(g.Spec.Endpoints, v1alpha1.ServiceEndpoint{Cluster: p, Address: p})
	}
	return []metav1.Object{d, app, g}
}
