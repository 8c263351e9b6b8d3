package sim

import (
	"slices"
	"time"

	"tripod.dev/tripod/failover"
)

// carry is the agent's effector: it refuses what is older than what it has
// seen, and does everything else as often as it is told with the effect of once.
func (s *site) carry(c failover.Command, answer func(failover.Result)) {
	if !s.works() {
		return
	}
	if s.older(c) {
		answer(failover.Result{Outcome: failover.Refused, Message: "older than what was seen"})
		return
	}
	s.lane.check.carried(s, c)
	if ordered(c) {
		s.sees(c.Epoch)
		s.seenRevision = max(s.seenRevision, c.Revision)
	}
	boot := s.agentBoot
	finish := func(after time.Duration, do func() failover.Result) {
		s.w.after(after, func() {
			if s.agentBoot != boot || !s.works() {
				return
			}
			if s.older(c) {
				answer(failover.Result{Outcome: failover.Refused, Message: "overtaken while in work"})
				return
			}
			answer(do())
		})
	}
	switch c.Verb {
	case failover.VerbFence:
		finish(s.w.between(20*time.Millisecond, 300*time.Millisecond), func() failover.Result { return s.fence() })
	case failover.VerbPromote:
		finish(s.w.between(100*time.Millisecond, 900*time.Millisecond), func() failover.Result { return s.promote(c) })
	case failover.VerbFollow:
		finish(s.w.between(50*time.Millisecond, 500*time.Millisecond), func() failover.Result { return s.resync(c) })
	case failover.VerbSetSyncSet:
		finish(s.w.between(10*time.Millisecond, 100*time.Millisecond), func() failover.Result { return s.setSyncSet(c) })
	case failover.VerbClose:
		s.closeDown(c, finish, answer)
	case failover.VerbCatchUp:
		s.catchUp(c, finish, answer)
	case failover.VerbWithhold:
		finish(s.w.between(10*time.Millisecond, 100*time.Millisecond), s.withhold)
	case failover.VerbProbe:
		finish(10*time.Millisecond, func() failover.Result { return s.probe(c) })
	case failover.VerbDrillStart:
		s.drill(c, finish, answer)
	case failover.VerbDrillStop:
		finish(s.w.between(50*time.Millisecond, time.Second), func() failover.Result {
			delete(s.drills, c.Run)
			s.undrilled[c.Run] = true
			return failover.Result{Outcome: failover.Done, Message: "nothing is left"}
		})
	default:
		answer(failover.Result{Outcome: failover.Refused, Message: "not modelled"})
	}
}

// older compares (epoch, revision) with what was seen; a probe changes nothing
// and is ordered by its epoch alone.
func (s *site) older(c failover.Command) bool {
	if s.w.opt.Bug == EffectorIgnoresEpoch {
		return false
	}
	if c.Verb == failover.VerbClose && s.w.opt.Bug == CloseAtOlderEpoch {
		return false
	}
	if c.Verb == failover.VerbDrillStop {
		return false
	}
	return c.Epoch < s.seenEpoch || ordered(c) && c.Epoch == s.seenEpoch && c.Revision < s.seenRevision
}

// ordered is true for what changes something, which has its order.
func ordered(c failover.Command) bool {
	switch c.Verb {
	case failover.VerbProbe, failover.VerbCatchUp, failover.VerbDrillStart, failover.VerbDrillStop:
		return false
	}
	return true
}

// closeDown stops the primary in order: no session is left at once, and what is
// in the log goes to the replicas that receive it before the database is gone.
func (s *site) closeDown(c failover.Command, finish func(time.Duration, func() failover.Result), answer func(failover.Result)) {
	db := &s.db
	if !db.primary || db.epoch != c.Epoch && s.w.opt.Bug != CloseAtOlderEpoch {
		answer(failover.Result{Outcome: failover.Refused, Message: "not the primary of this epoch"})
		return
	}
	s.closed = max(1, c.Revision)
	took := s.w.between(50*time.Millisecond, 600*time.Millisecond)
	if db.running && !db.closing {
		db.closing = true
		s.ship()
		boot := db.boot
		s.w.after(took, func() { // the guard's work, whatever becomes of the agent
			if db.boot == boot && s.w.power[s.id] {
				s.w.trace("%s is closed at epoch %d with %d writes", s.name(), db.epoch, len(db.log))
				db.stop()
				db.orderly = true
			}
		})
	}
	finish(took+time.Millisecond, func() failover.Result {
		if !db.orderly {
			return failover.Result{Outcome: failover.Failed, Message: "it was killed, or is still closing"}
		}
		// Positions begin at 1: 0 is none.
		return failover.Result{Outcome: failover.Done, Position: "model", PositionBytes: int64(len(db.log)) + 1}
	})
}

// catchUp answers when this replica holds what is asked for.
func (s *site) catchUp(c failover.Command, finish func(time.Duration, func() failover.Result), answer func(failover.Result)) {
	if s.db.primary {
		answer(failover.Result{Outcome: failover.Refused, Message: "a primary"})
		return
	}
	left := c.Bound
	look := func() failover.Result {
		have := int64(len(s.db.log)) + 1
		if s.w.opt.Bug == CatchUpNotProven {
			have = max(have, c.PositionBytes)
		}
		if have >= c.PositionBytes {
			return failover.Result{Outcome: failover.Done, Position: "model", PositionBytes: have}
		}
		return failover.Result{Outcome: failover.Failed, Message: "behind"}
	}
	finish(s.w.between(0, min(left, 300*time.Millisecond)), look)
}

// drill copies this standby apart, promotes the copy and asks it. A drill that was
// stopped meanwhile is begun no more.
func (s *site) drill(c failover.Command, finish func(time.Duration, func() failover.Result), answer func(failover.Result)) {
	switch {
	case s.undrilled[c.Run]:
		answer(failover.Result{Outcome: failover.Failed, Message: "the drill was stopped"})
		return
	case s.db.primary || !s.db.running:
		answer(failover.Result{Outcome: failover.Failed, Message: "no standby runs here"})
		return
	}
	s.drills[c.Run] = true
	finish(s.w.between(time.Second, 9*time.Second), func() failover.Result {
		if !s.drills[c.Run] {
			return failover.Result{Outcome: failover.Failed, Message: "the drill was stopped"}
		}
		return failover.Result{Outcome: failover.Done, Message: "a copy was promoted and read"}
	})
}

func (s *site) fence() failover.Result {
	s.db.stop()
	s.db.fenced = true
	return failover.Result{Outcome: failover.Done, Message: "stopped; the probe write failed"}
}

func (s *site) promote(c failover.Command) failover.Result {
	db := &s.db
	switch {
	case db.primary && db.epoch == c.Epoch && db.running && !db.closing && s.w.opt.Bug != StepHasItsEffectTwice:
		return failover.Result{Outcome: failover.Done, Message: "was promoted before"}
	case !s.mayStart(c.Revision):
		return failover.Result{Outcome: failover.Refused, Message: "closed"}
	case !s.proven(c.Epoch) && s.w.opt.Bug != EffectorIgnoresEpoch:
		return failover.Result{Outcome: failover.Failed, Message: "no proof of the primary role"}
	case !db.formed && c.Epoch > 1:
		return failover.Result{Outcome: failover.Refused, Message: "no whole copy to promote"} // as the guard does
	case s.promised():
		return failover.Result{Outcome: failover.Failed, Message: "a pledge is not over"}
	}
	if db.primary && db.epoch == c.Epoch && (!db.running || db.closing) {
		return s.reopen()
	}
	db.stop()
	db.log = slices.Clone(db.log)
	s.closed = 0
	db.primary, db.formed, db.fenced, db.epoch, db.follows, db.waits = true, true, false, c.Epoch, -1, nil
	for _, name := range c.SyncSet {
		if name != s.name() {
			db.waits = append(db.waits, name)
		}
	}
	db.start()
	s.w.trace("%s is promoted at epoch %d with %d writes", s.name(), c.Epoch, len(db.log))
	s.lane.check.promotedAt(s)
	s.lane.check.writing(s)
	return failover.Result{Outcome: failover.Done, Position: "model", Elapsed: time.Millisecond}
}

// reopen starts the primary of this epoch again: nothing is promoted.
func (s *site) reopen() failover.Result {
	s.w.trace("%s is opened again at epoch %d", s.name(), s.db.epoch)
	s.closed, s.db.fenced = 0, false
	s.db.stop()
	s.db.start()
	s.lane.check.writing(s)
	return failover.Result{Outcome: failover.Done, Position: "model", Message: "runs again"}
}

func (s *site) resync(c failover.Command) failover.Result {
	p := s.lane.sites[siteOf(c.Primary)]
	if !s.w.linked(s.id, p.id) || !p.db.running || !p.db.primary || p.db.epoch != c.Epoch {
		return failover.Result{Outcome: failover.Failed, Message: "the primary is not reached"}
	}
	if s.db.running && !s.db.primary && s.db.follows == p.id && s.db.epoch == c.Epoch {
		return failover.Result{Outcome: failover.Done, Message: "follows already"}
	}
	if s.db.copying > s.w.now {
		return failover.Result{Outcome: failover.Failed, Message: "the copy is under way"}
	}
	if !s.follow(p, c.Epoch) {
		return failover.Result{Outcome: failover.Failed, Message: "diverged"}
	}
	return failover.Result{Outcome: failover.Done}
}

// setSyncSet changes whom commits wait for. One that is added must stream and
// be close.
func (s *site) setSyncSet(c failover.Command) failover.Result {
	db := &s.db
	if !db.running || !db.primary || db.epoch != c.Epoch {
		return failover.Result{Outcome: failover.Failed, Message: "not the running primary"}
	}
	var waits []string
	for _, name := range c.SyncSet {
		if name == s.name() {
			continue
		}
		t := siteOf(name)
		if !slices.Contains(db.waits, name) && (db.heard[t] == 0 || s.w.now-db.heard[t] > time.Second) {
			return failover.Result{Outcome: failover.Failed, Message: name + " does not stream"}
		}
		waits = append(waits, name)
	}
	db.waits = waits
	s.acknowledge()
	return failover.Result{Outcome: failover.Done}
}

func (s *site) probe(c failover.Command) failover.Result {
	if s.db.running && s.db.primary && s.db.epoch == c.Epoch {
		return failover.Result{Outcome: failover.Done, Message: "a write was accepted"}
	}
	return failover.Result{Outcome: failover.Failed, Message: "no write was accepted"}
}
