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
	s.w.check.carried(s, c)
	if c.Verb != failover.VerbProbe {
		s.seenEpoch, s.seenRevision = c.Epoch, c.Revision
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
	case failover.VerbProbe:
		finish(10*time.Millisecond, func() failover.Result { return s.probe(c) })
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
	return c.Epoch < s.seenEpoch || c.Verb != failover.VerbProbe && c.Epoch == s.seenEpoch && c.Revision < s.seenRevision
}

func (s *site) fence() failover.Result {
	s.db.stop()
	s.db.fenced = true
	return failover.Result{Outcome: failover.Done, Message: "stopped; the probe write failed"}
}

func (s *site) promote(c failover.Command) failover.Result {
	db := &s.db
	switch {
	case db.primary && db.epoch == c.Epoch && db.running && s.w.opt.Bug != StepHasItsEffectTwice:
		return failover.Result{Outcome: failover.Done, Message: "was promoted before"}
	case !s.proven(c.Epoch) && s.w.opt.Bug != EffectorIgnoresEpoch:
		return failover.Result{Outcome: failover.Failed, Message: "no proof of the primary role"}
	case !db.formed && c.Epoch > 1:
		return failover.Result{Outcome: failover.Failed, Message: "no copy to promote"}
	}
	db.stop()
	db.log = slices.Clone(db.log)
	db.primary, db.formed, db.fenced, db.epoch, db.follows, db.waits = true, true, false, c.Epoch, -1, nil
	for _, name := range c.SyncSet {
		if name != s.name() {
			db.waits = append(db.waits, name)
		}
	}
	db.start()
	s.w.trace("%s is promoted at epoch %d with %d writes", s.name(), c.Epoch, len(db.log))
	s.w.check.promotedAt(s)
	s.w.check.writing(s)
	return failover.Result{Outcome: failover.Done, Position: "model", Elapsed: time.Millisecond}
}

func (s *site) resync(c failover.Command) failover.Result {
	p := s.w.sites[siteOf(c.Primary)]
	if !s.w.linked(s.id, p.id) || !p.db.running || !p.db.primary || p.db.epoch != c.Epoch {
		return failover.Result{Outcome: failover.Failed, Message: "the primary is not reached"}
	}
	if s.db.running && !s.db.primary && s.db.follows == p.id && s.db.epoch == c.Epoch {
		return failover.Result{Outcome: failover.Done, Message: "follows already"}
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
