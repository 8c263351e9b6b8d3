package sim

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// scheduleOutage plays what pledges are for, and what they must not be misused
// for: the whole hub is gone, or the primary alone does not reach it.
func (w *world) scheduleOutage() {
	from := w.between(14*time.Second, 20*time.Second)
	to := from + w.between(8*time.Second, 25*time.Second)
	w.after(healAt, w.heal)
	primary := siteOf(w.first().dataset.Spec.Members[0].Cluster)
	switch kind := w.rng.IntN(13); kind {
	case 0, 9:
		w.outage(from, to)
		w.after(from, w.expectNoStop)
	case 1, 2: // the hub is gone, and pledgers too
		w.outage(from, to)
		w.after(w.between(from, to), func() { w.disturb(primary, 1-primary) })
		if kind == 2 { // and the primary hears nothing of the hub that returns
			w.after(w.between(from, to), func() { w.deafen(primary, w.between(5*time.Second, 20*time.Second)) })
		}
	case 3: // only the primary does not hear the hub, and its pledgers do
		w.after(from, func() { w.deafen(primary, w.between(5*time.Second, 30*time.Second)) })
		switch w.rng.IntN(4) {
		case 0:
			w.after(from+w.between(0, 12*time.Second), func() { w.disturb(primary, 1-primary) })
		case 1: // the lease ends, and who promised is not who is told to promote
			w.after(from+w.between(4*time.Second, 7*time.Second), func() { w.another(1-primary, 200*time.Millisecond) })
		case 2: // pledges come late
			w.after(from, func() { w.slow = true })
			w.after(from+15*time.Second, func() { w.slow = false })
		}
	case 4, 5: // a city that is silent, or half of it, and an order to leave it
		w.after(from, func() { w.deafen(primary, w.between(15*time.Second, 30*time.Second)) })
		if kind == 4 {
			w.after(from, func() { w.deafen(1-primary, w.between(8*time.Second, 30*time.Second)) })
		}
		w.after(from+w.between(-3*time.Second, 5*time.Second), func() { w.leave(places[primary], places[2]) })
		if w.chance(0.3) { // what the target lacks grows
			w.after(from+w.between(-time.Second, 5*time.Second), func() { w.setCut(primary, 2, true) })
			w.after(from+28*time.Second, func() { w.setCut(primary, 2, false) })
		}
		switch w.rng.IntN(3) {
		case 0:
			w.after(from+w.between(0, 10*time.Second), func() { w.disturb(primary, 1-primary) })
		case 1: // who has acknowledged the epoch is not who is asked for a pledge next
			w.after(from+w.between(6*time.Second, 16*time.Second), func() { w.another(1-primary, 200*time.Millisecond) })
		}
	case 6, 10: // the primary falls silent in the moment in which the last member joins
		w.grown = func(d v1alpha1.DatasetStatus) {
			if w.now > faultsTo || w.first().dataset.Spec.Members[2].Link == v1alpha1.LinkSynchronous && len(d.SyncSet) < centers {
				return
			}
			w.deafen(siteOf(d.Primary), w.between(15*time.Second, 30*time.Second))
			w.leave(d.Primary, d.SyncSet[len(d.SyncSet)-1])
		}
	case 7: // alone in the sync set, and kept by one who is not in it any more
		w.after(from, func() { w.setCut(primary, 1-primary, true) })
		w.after(from+w.between(7*time.Second, 9*time.Second), func() {
			w.deafen(primary, w.between(15*time.Second, 25*time.Second))
			w.setCut(primary, 1-primary, false)
			w.leave(places[primary], places[2])
		})
	case 11, 12: // a switchover, of which one side or the hub falls silent
		w.switchoverInSilence(from, primary, kind == 12)
	case 8:
		w.outage(from, to)
		for range 1 + w.rng.IntN(3) {
			w.after(w.between(faultsFrom, faultsTo), w.fault)
		}
	}
}

// switchoverInSilence orders a switchover, of which one side or the whole hub falls
// silent soon after.
func (w *world) switchoverInSilence(from time.Duration, primary int, whole bool) {
	w.after(from, w.switchover)
	soon := from + w.between(0, 3*time.Second)
	if !whole {
		w.after(soon, func() { w.deafen(w.rng.IntN(centers), w.between(3*time.Second, 25*time.Second)) })
	} else {
		w.outage(soon, soon+w.between(5*time.Second, 15*time.Second))
	}
	if w.chance(0.5) {
		w.after(soon+w.between(0, 8*time.Second), func() { w.disturb(primary, 1-primary) })
	}
}

// outage stops every hub member, and starts them again one after the other.
func (w *world) outage(from, to time.Duration) {
	w.after(from, func() {
		w.trace("FAULT the whole hub dies")
		for _, m := range w.members {
			m.stop()
		}
	})
	for i := range centers {
		w.after(to+w.between(0, 2*time.Second), func() { w.restartMember(i) })
	}
}

// deafen cuts a cluster off from every hub member, and from nothing else.
func (w *world) deafen(i int, d time.Duration) {
	w.trace("FAULT nothing goes between %s and the hub", places[i])
	w.deaf[i] = true
	w.after(d, func() { w.deaf[i] = false })
}

// another replica of an agent becomes active within d.
func (w *world) another(i int, d time.Duration) {
	w.trace("FAULT another replica of the agent of %s becomes active", places[i])
	w.agents(i, (*site).stopAgent)
	w.after(w.between(0, d), func() { w.restartAgent(i) })
}

// disturb breaks something between the primary and its pledger.
func (w *world) disturb(a, b int) {
	d := w.between(2*time.Second, 20*time.Second)
	switch w.rng.IntN(6) {
	case 0:
		w.trace("FAULT the link between %s and %s is cut", places[a], places[b])
		w.setCut(a, b, true)
		w.after(d, func() { w.setCut(a, b, false) })
	case 1:
		w.trace("FAULT nothing goes from %s to %s", places[b], places[a])
		w.cut[b][a] = true
		w.after(d, func() { w.cut[b][a] = false })
	case 2:
		w.trace("FAULT %s loses power", places[b])
		w.powerOff(b)
		w.after(d, func() { w.powerOn(b) })
	case 3:
		w.another(b, 2*time.Second)
	case 4:
		w.trace("FAULT %s is isolated", places[a])
		w.setCut(a, -1, true)
		w.after(d, func() { w.setCut(a, -1, false) })
	case 5:
		w.trace("FAULT the network is slow and loses messages")
		w.slow, w.loss = true, w.rng.Float64()*0.1
		w.after(d, func() { w.slow, w.loss = false, 0 })
	}
}

// leave is an operator's failover to a cluster that is named, as soon as nothing
// else is under way.
func (w *world) leave(from, to string) {
	d := w.first().dataset
	if w.now > faultsTo || d.Status.Primary != from {
		return
	}
	if w.leader < 0 || w.busy() {
		w.after(500*time.Millisecond, func() { w.leave(from, to) })
		return
	}
	w.create(fmt.Sprintf("ordered-%d", len(w.truth.runs)), v1alpha1.RecoveryRunSpec{Application: reference(0), Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: from}, To: v1alpha1.Place{Cluster: to}, Requester: "bob"})
}

// expectNoStop begins to watch invariant I9: this primary is healthy, and all that
// happens to it is that the hub is gone.
func (w *world) expectNoStop() {
	d := w.first().dataset.Status
	s := w.lanes[0].sites[siteOf(d.Primary)]
	pledgers := s.pledgers()
	if d.Phase == v1alpha1.DatasetSteady && s.db.running && s.db.primary && s.role.primary && s.role.epoch == d.Epoch &&
		s.holder.Holds(s.now()) && len(pledgers) > 0 {
		if !slices.Contains(pledgers, places[2]) && w.chance(0.5) { // it is not needed
			w.after(w.between(0, 3*time.Second), func() { w.trace("FAULT south-1 loses power"); w.powerOff(2) })
		}
		w.lanes[0].check.steadfast, w.result.Outages = s, 1
		w.expectWrites()
	}
}

// expectWrites looks whether clients are answered for as long as no hub is there.
func (w *world) expectWrites() {
	if w.leader >= 0 {
		return
	}
	if w.now-w.lanes[0].check.lastAck > 3*time.Second {
		w.lanes[0].check.violate("I9", "the hub is gone, and no write was acknowledged since %.3fs", w.lanes[0].check.lastAck.Seconds())
		return
	}
	w.after(time.Second, w.expectWrites)
}

// stopped is called when a guard kills a primary: I9.
func (c *checker) stopped(s *site) {
	if c.steadfast == s {
		c.violate("I9", "the hub is gone, and %s was stopped although it is healthy and its pledgers %v are reached", s.name(), s.pledgers())
	}
}
