package sim

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// impatient is a person who orders another copy instead of a target that has not been
// promoted yet, whatever the reason; and who sometimes thinks better of it.
func (w *world) impatient() {
	w.after(500*time.Millisecond, w.impatient)
	d := w.first().dataset.Status
	r := w.truth.runs[d.Run]
	if d.Phase != v1alpha1.DatasetPromoting || r == nil || r.Spec.Action.Planned() || w.leader < 0 || w.now > healAt || w.replacing(r.Name) {
		return
	}
	hurry := 0.05
	if r.Status.Phase == v1alpha1.RunPaused {
		hurry = 0.3
	}
	if w.fifth.Float64() >= hurry {
		return
	}
	to := places[w.fifth.IntN(centers)]
	if to == d.Primary {
		to = ""
	}
	name := fmt.Sprintf("instead-%d", len(w.truth.runs))
	w.create(name, v1alpha1.RecoveryRunSpec{Application: r.Spec.Application, Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: d.Primary}, To: v1alpha1.Place{Cluster: to}, Requester: "bob", InsteadOf: r.Name})
	w.result.Instead++
	w.after(healAt-w.now, func() { w.abort(name) }) // what still waits then is given up
	if w.fifth.IntN(4) == 0 {
		w.after(time.Duration(w.fifth.Int64N(int64(5*time.Second))), func() { w.abort(name) })
	}
}

// replacing is true while a run is ordered instead of another.
func (w *world) replacing(run string) bool {
	for _, r := range w.truth.runs {
		if r.Spec.InsteadOf == run && !failover.Finished(r.Status.Phase) {
			return true
		}
	}
	return false
}

// instead judges that a run takes a dataset from the target of another one: somebody
// has accepted what that one may have acknowledged, and the other run rests.
func (c *checker) instead(r *v1alpha1.RecoveryRun, a, b v1alpha1.DatasetStatus) {
	if b.Epoch == a.Epoch {
		return
	}
	if a.Run != r.Spec.InsteadOf {
		c.violate("I6", "%s takes epoch %d from run %q, and was ordered instead of %s", r.Name, b.Epoch, a.Run, r.Spec.InsteadOf)
	}
	if !slices.ContainsFunc(c.w.truth.approvals, func(a *v1alpha1.Approval) bool { return agrees(a, r) && a.Spec.AcceptLoss != nil }) {
		c.violate("I2", "%s takes epoch %d from %s, which may have written, and nobody has accepted that", r.Name, b.Epoch, a.Primary)
	}
	if old := c.w.truth.runs[r.Spec.InsteadOf]; old != nil && old.Status.Phase != v1alpha1.RunPaused && !failover.Finished(old.Status.Phase) {
		c.violate("I6", "%s takes epoch %d while %s is %s", r.Name, b.Epoch, old.Name, old.Status.Phase)
	}
	c.result.Taken++
}
