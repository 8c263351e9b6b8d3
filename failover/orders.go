package failover

import (
	"cmp"
	"fmt"
	"slices"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// People steer a run with Approvals that name a step: pause, resume, retry and
// abort. Each is followed once, in the order in which the server took them, and
// journalled with the change that it caused; an abort stands.

// Reasons of a run that a person steers.
const (
	ReasonPausedByPerson = "PausedByPerson"
	ReasonParentPaused   = "ParentPaused"
	ReasonAborting       = "Aborting"
)

// orders are the words on this run for the steps, oldest first, that were not
// followed yet.
func (x *step) orders(steps ...string) []*v1alpha1.Approval {
	var out []*v1alpha1.Approval
	for _, a := range x.indexed().approvals[x.was.Run.Name] {
		if a.Spec.Approver == "" || !slices.Contains(steps, a.Spec.Step) || (a.Spec.Decision == v1alpha1.DecisionReject) != (a.Spec.Step == v1alpha1.StepPause) {
			continue
		}
		followed := slices.ContainsFunc(x.status().Orders, func(o v1alpha1.RunOrder) bool { return o.Approval == a.Name })
		if !followed {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.Approval) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(revision(a), revision(b)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// follow journals that an order was followed.
func (x *step) follow(a *v1alpha1.Approval) {
	x.status().Orders = append(x.status().Orders, v1alpha1.RunOrder{Approval: a.Name, Step: a.Spec.Step, By: a.Spec.Approver, At: *x.mark()})
	x.note(NoteApproval, a.Spec.Approver, fmt.Sprintf("ordered %s: %s", a.Spec.Step, orNoComment(a.Spec.Comment)), 0)
}

func orNoComment(s string) string {
	if s == "" {
		return "no comment"
	}
	return s
}

// steered follows the orders to pause and to resume of a run of one application.
// It is true when the run is paused by a person.
func (x *step) steered() bool {
	var stale []*v1alpha1.Approval
	for _, a := range x.orders(v1alpha1.StepPause, v1alpha1.StepResume) {
		byPerson := x.pausedByPerson()
		switch {
		case a.Spec.Step == v1alpha1.StepPause && !byPerson && x.pausable():
			for _, old := range stale { // said before the pause, it does not end it
				x.follow(old)
			}
			stale = nil
			x.pauseFor(a)
		case a.Spec.Step == v1alpha1.StepResume && byPerson:
			x.follow(a)
			x.resume("ordered by " + a.Spec.Approver)
		case a.Spec.Step == v1alpha1.StepResume:
			stale = append(stale, a)
		}
	}
	st := x.status()
	if x.was.Run.Status.Phase != st.Phase || x.was.Run.Status.Reason != st.Reason {
		return true // a change of its own, which the next turn goes on from
	}
	return x.pausedByPerson() && !x.abandoned()
}

func (x *step) pausedByPerson() bool {
	return x.status().Phase == v1alpha1.RunPaused && x.status().Reason == ReasonPausedByPerson
}

func (x *step) pauseFor(a *v1alpha1.Approval) {
	x.follow(a)
	x.pause(ReasonPausedByPerson, fmt.Sprintf("paused by %s: to go on, tripodctl run resume %s", a.Spec.Approver, x.was.Run.Name))
}

// pausable is true where a pause leaves nobody worse off than before: not while a
// switchover keeps writes closed, which its limit ends by itself, and not between
// the promotion and the routes.
func (x *step) pausable() bool {
	switch x.status().Phase {
	case v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunAwaitingApproval, v1alpha1.RunWaves, v1alpha1.RunPaused:
		return true
	case v1alpha1.RunFencing, v1alpha1.RunPromoting, v1alpha1.RunVerifying:
		return !x.planned()
	}
	return false
}

// abandoned ends a paused run that has changed nothing yet when a person says so.
func (x *step) abandoned() bool {
	switch x.status().ResumePhase {
	case v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunAwaitingApproval:
		return !x.changed() && x.withdrawn()
	}
	return false
}

// changed is true when a dataset carries this run's mark.
func (x *step) changed() bool {
	return slices.ContainsFunc(x.was.Datasets, func(d *v1alpha1.Dataset) bool { return d.Status.Run == x.was.Run.Name })
}
