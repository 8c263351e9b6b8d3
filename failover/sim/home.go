package sim

import (
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// failback is an operator's order to bring the role home.
func (w *world) failback() {
	d := w.first().dataset
	if w.leader < 0 || d.Status.Primary == d.Home() || d.Status.Primary == "" || w.busy() {
		return
	}
	name := w.plan(v1alpha1.ActionFailback, d.Home(), 5)
	w.after(healAt-w.now, func() { w.abort(name) })
}

// hold of the application in a schedule, and who goes home.
func (w *world) policy() (holdSeconds int32, mode v1alpha1.FailbackMode) {
	if w.opt.Flap {
		return 600, v1alpha1.FailbackAutomatic
	}
	if w.third.IntN(3) == 0 {
		return 10, v1alpha1.FailbackAutomatic
	}
	return 10, v1alpha1.FailbackManual
}

// names are those that lead to a lane's application: of every third one none.
func (w *world) names(l *lane) []string {
	if w.third.IntN(3) == 0 {
		return nil
	}
	return []string{l.application().Name}
}

// The flaps of scenario S7.
const (
	flap     = 20 * time.Second
	flapsFor = 10 * time.Minute
)

// flaps cuts and mends a link, or two in turns, and lets the fleet settle then.
func (w *world) flaps() {
	w.until = faultsFrom + flapsFor + 60*time.Second
	which := w.third.IntN(4)
	for i := range int(flapsFor / flap / 2) {
		at := faultsFrom + time.Duration(i)*2*flap
		who, link := 0, -1
		switch {
		case which == 1 && i%2 == 1: // the links of both, in turns
			who = 1
		case which == 2: // between the two
			link = 1
		case which == 3 && i >= 8: // of the one, and later of the other
			who = 1
		}
		w.after(at, func() {
			w.trace("FAULT the link of %s flaps", places[who])
			w.setCut(who, link, true)
		})
		w.after(at+flap, func() { w.setCut(who, link, false) })
	}
}

// homeward judges a failback at its first change: the home is in the committed
// sync set, and has been heard without a loss for the hold time.
func (c *checker) homeward(a, b v1alpha1.DatasetStatus) {
	r := c.w.truth.runs[b.Run]
	if a.Phase != v1alpha1.DatasetSteady || b.Phase != v1alpha1.DatasetClosing || r == nil || r.Spec.Action != v1alpha1.ActionFailback {
		return
	}
	home, app := c.unit().dataset.Home(), c.unit().app
	if !slices.Contains(a.SyncSet, home) {
		c.violate("hold", "%s goes home to %s, which is not in the sync set %v", r.Name, home, a.SyncSet)
	}
	hold := time.Duration(app.Spec.Failover.HoldSeconds) * time.Second
	if since := c.w.now - c.back[home]; c.back[home] > 0 && since < hold*9/10 {
		c.violate("hold", "%s goes home to %s, which came back %v ago", r.Name, home, since)
	}
}

// whole judges a decision: no part of a copy is made primary.
func (c *checker) whole(a, b v1alpha1.DatasetStatus) {
	if b.Epoch > a.Epoch && b.Epoch > 1 && c.lane.sites[siteOf(b.Primary)].db.partial {
		c.violate("leg", "%s is to be the primary of epoch %d and holds a part of a copy", b.Primary, b.Epoch)
	}
}
