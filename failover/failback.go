package failover

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// A failback is a switchover to the datasets' home, behind a gate: the home must
// be a caught-up copy, a synchronous one if it is declared so, and held by nobody.
// A gate that is shut ends the run before anything is changed.

// astray are the datasets whose primary is not at home.
func astray(datasets []*v1alpha1.Dataset) []*v1alpha1.Dataset {
	var out []*v1alpha1.Dataset
	for _, d := range datasets {
		if d.Status.Phase == v1alpha1.DatasetSteady && d.Status.Primary != d.Home() {
			out = append(out, d)
		}
	}
	return out
}

// shut says why datasets may not go home now, or is empty.
func (s *Snapshot) shut(det Detection, app *v1alpha1.Application, away []*v1alpha1.Dataset, to string) (reason, message string) {
	home := away[0].Home()
	for _, d := range away[1:] {
		if d.Home() != home {
			return ReasonNoHome, fmt.Sprintf("the home of dataset %s is %s, that of %s is %s: move each application's datasets to one home, or use tripodctl switchover --to",
				away[0].Name, home, d.Name, d.Home())
		}
	}
	if to != "" && to != home {
		return ReasonNoHome, fmt.Sprintf("the home of dataset %s is %s, not %s: use tripodctl switchover %s/%s --to %s", away[0].Name, home, to, app.Namespace, app.Name, to)
	}
	if class := det.Classes[home]; class != Healthy {
		return ReasonHomeAway, fmt.Sprintf("%s is %s: %s", home, orUnknown(class), det.Reasons[home])
	}
	if why := s.held(app, away, home); why != "" {
		return ReasonHeld, why
	}
	// A loss in the time in which no leader watched has left no mark.
	if stable, hold := s.Fleet.Sightings[home].Stable, holdTime(app); stable < hold {
		return ReasonHeld, fmt.Sprintf("the hub's present leader has heard %s without a gap for %v, and not for the hold time of %v yet", home, stable.Round(time.Second), hold)
	}
	for _, d := range away {
		m := member(d, home)
		if m.Link == v1alpha1.LinkAsynchronous || d.Spec.Protection == v1alpha1.Asynchronous {
			continue // the proof of the switchover is enough
		}
		if !inSyncSet(d, home) {
			return ReasonNotCaughtUp, fmt.Sprintf("%s is not in the committed sync set of dataset %s, which is %v: wait until it has caught up", home, key(d), d.Status.SyncSet)
		}
	}
	return "", ""
}

// gated ends a failback whose gate is shut. It is false for any other run.
func (x *step) gated(moving []*v1alpha1.Dataset) bool {
	run := x.was.Run
	if run.Spec.Action != v1alpha1.ActionFailback {
		return false
	}
	reason, message := x.shut(x.det, x.was.App, moving, run.Spec.To.Cluster)
	if reason == "" {
		return false
	}
	x.abort(reason, message+": nothing was changed")
	return true
}

// homecoming is the failback that the policy asks the engine for, or nil.
func homecoming(s *Snapshot, det Detection, app *v1alpha1.Application) *v1alpha1.RecoveryRun {
	datasets := s.datasetsOf(app)
	away := astray(datasets)
	if app.Spec.Failover.Failback != v1alpha1.FailbackAutomatic || len(away) == 0 || !det.Automatic() || s.discouraged(app) {
		return nil
	}
	for _, d := range datasets {
		if d.Status.Phase != v1alpha1.DatasetSteady || det.Classes[d.Status.Primary] != Healthy {
			return nil
		}
	}
	home := away[0].Home()
	if reason, _ := s.shut(det, app, away, ""); reason != "" {
		return nil
	}
	for _, d := range away {
		if s.unready(det, d, home) != "" {
			return nil
		}
	}
	from, _ := s.Fleet.Cluster(away[0].Status.Primary)
	to, _ := s.Fleet.Cluster(home)
	return &v1alpha1.RecoveryRun{
		ObjectMeta: metav1.ObjectMeta{Name: s.failbackName(app, away)},
		Spec: v1alpha1.RecoveryRunSpec{
			Application: v1alpha1.ApplicationReference{Namespace: app.Namespace, Name: app.Name},
			Action:      v1alpha1.ActionFailback,
			From:        v1alpha1.Place{Cluster: from.Name, Center: from.Center},
			To:          v1alpha1.Place{Cluster: to.Name, Center: to.Center},
		},
	}
}

// failbackName is one per application, epoch and attempt, so that two leaders
// cannot make two runs. It is no failover's name: whether one of these was
// rejected says nothing about a loss.
func (s *Snapshot) failbackName(app *v1alpha1.Application, away []*v1alpha1.Dataset) string {
	base := fmt.Sprintf("%s.%s.failback-%d", app.Namespace, app.Name, nextEpoch(away))
	name := base
	for attempt := 2; s.run(name) != nil; attempt++ {
		name = fmt.Sprintf("%s.%d", base, attempt)
	}
	return name
}

// discouraged is true where the engine should not go home by itself now. Only a
// failover is undone: who moved the role as planned has meant it. And the last
// attempt may speak against another one: a person has ended it, or it failed less
// than a hold time ago.
func (s *Snapshot) discouraged(app *v1alpha1.Application) bool {
	var moved, failed *v1alpha1.RecoveryRun
	for _, r := range s.indexed().runsOf[key(app)] {
		switch {
		case r.Status.Phase == v1alpha1.RunCompleted && r.Spec.Action != v1alpha1.ActionDrill:
			moved = later(moved, r)
		case r.Status.Phase == v1alpha1.RunAborted && r.Spec.Action == v1alpha1.ActionFailback:
			failed = later(failed, r)
		}
	}
	if moved == nil || moved.Spec.Action != v1alpha1.ActionFailover {
		return true
	}
	if failed == nil || later(moved, failed) == moved {
		return false
	}
	if slices.Contains([]string{ReasonAborted, ReasonRejected}, failed.Status.Reason) {
		return true
	}
	at := failed.Status.Timeline.FinishedAt
	return at == nil || s.Now.Sub(at.Time) < holdTime(app)
}

// later is the one of two runs that was made later.
func later(a, b *v1alpha1.RecoveryRun) *v1alpha1.RecoveryRun {
	if a == nil || a.CreationTimestamp.Before(&b.CreationTimestamp) {
		return b
	}
	return a
}
