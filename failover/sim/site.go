package sim

import (
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/failover/pledge"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// grant as the agent receives it.
type grant struct {
	seq     uint64
	stamp   lease.Stamp
	epoch   int64
	primary bool
	// pledgers are named with the primary role.
	pledgers []string
}

// site is one cluster: its agent, its guard and its copy of the database. Agent
// and guard have clocks of their own.
type site struct {
	w    *world
	lane *lane
	id   int

	agentUp   bool
	agentBoot int
	clock     clock
	holder    *lease.Holder
	role      grant
	// collector and promises are nil where agents do not live on pledges.
	collector *pledge.Collector
	promises  *pledge.Book
	// epochAtStart is what the agent has not seen itself.
	epochAtStart int64

	guarded    bool
	guardClock clock
	proof      grant
	deadline   time.Duration // of the proof, on the guard's clock

	// Durable: the highest (epoch, revision) that was carried out or seen.
	seenEpoch, seenRevision int64
	// closed is the revision of the CLOSE that the guard remembers, or 0.
	closed int64
	// drills whose copies are here. They outlive the power, as namespaces do.
	drills map[string]bool
	// undrilled are those that were stopped, as far as the agent's process knows.
	undrilled map[string]bool
	db        database
}

func newSite(w *world, l *lane, id int) *site {
	s := &site{w: w, lane: l, id: id, clock: w.newClock(), guardClock: w.newClock(), drills: map[string]bool{}, guarded: !w.chance(0.12)}
	s.db.follows = -1
	return s
}

func (s *site) name() string             { return places[s.id] }
func (s *site) now() time.Duration       { return s.clock.at(s.w.now) }
func (s *site) guardNow() time.Duration  { return s.guardClock.at(s.w.now) }
func (s *site) works() bool              { return s.agentUp && s.w.power[s.id] }
func (s *site) guardTime() time.Duration { return s.w.lease.KillAt(s.deadline) }

func (s *site) start() {
	s.startAgent()
	s.w.after(s.w.between(0, s.w.lease.Tick), s.guardTick)
	s.w.after(s.w.between(0, 50*time.Millisecond), s.guardWatch)
	s.w.after(s.w.between(0, 200*time.Millisecond), s.replicate)
}

func (s *site) startAgent() {
	s.agentBoot++
	s.agentUp, s.undrilled = true, map[string]bool{}
	s.holder = lease.NewHolder(1)
	s.role = grant{}
	s.startPledging()
	boot := s.agentBoot
	var beat func()
	beat = func() {
		if s.agentBoot != boot {
			return
		}
		if s.works() {
			s.heartbeat()
		}
		s.w.after(s.clock.in(s.w.lease.Tick), beat)
	}
	s.w.after(s.w.between(0, s.w.lease.Tick), beat)
	var ask func()
	ask = func() {
		if s.agentBoot != boot {
			return
		}
		if s.works() {
			s.askPledgers()
		}
		s.w.after(s.clock.in(s.w.lease.Tick/2), ask)
	}
	s.w.after(s.clock.in(s.w.lease.Tick/4), ask)
}

func (s *site) stopAgent() { s.agentBoot++; s.agentUp = false }

// heartbeat asks every hub member for a grant.
func (s *site) heartbeat() {
	seq := s.holder.Ask(s.now())
	o := s.observe()
	if s.w.deaf[s.id] {
		return
	}
	for _, m := range s.w.members {
		s.w.send(s.id, m.id, func() {
			m.local(func() { m.heartbeat(beat{s.lane, s.id, seq, m.id}, o) })
		})
	}
}

func (s *site) granted(g grant) {
	if !s.works() {
		return
	}
	if s.w.opt.Bug == DeadlineFromAnswer {
		g.seq = s.holder.Ask(s.now())
	}
	if s.holder.Answer(g.seq, g.stamp, s.w.lease.TTL, s.now()) == lease.Accepted {
		s.role = g
		s.sees(g.epoch)
	}
}

// guardTick asks the agent for a proof; the guard's deadline counts from when
// it asked.
func (s *site) guardTick() {
	s.w.after(s.guardClock.in(s.w.lease.Tick/2), s.guardTick)
	if !s.works() || s.now() >= s.roleEnds() {
		return
	}
	asked, remaining, proof := s.guardNow(), s.roleEnds()-s.now(), s.role
	s.w.send(s.id, s.id, func() {
		s.proof, s.deadline = proof, asked+remaining
		s.enforce()
	})
}

func (s *site) guardWatch() {
	s.w.after(100*time.Millisecond, s.guardWatch)
	s.enforce()
}

// proven is true while the guard holds a valid proof of the primary role.
func (s *site) proven(epoch int64) bool {
	return s.proof.primary && s.proof.epoch == epoch && s.guardNow() < s.guardTime()
}

// enforce kills a primary without a proof, and starts one again that has it.
func (s *site) enforce() {
	if !s.w.power[s.id] {
		return
	}
	db := &s.db
	switch {
	case db.running && db.primary && !s.proven(db.epoch) && s.guarded && s.w.opt.Bug != GuardDoesNotKill:
		s.w.trace("guard of %s kills the primary of epoch %d", s.name(), db.epoch)
		db.stop()
		s.lane.check.stopped(s)
	case !db.running && db.primary && !db.fenced && s.mayStart(0) && s.seenEpoch == db.epoch && s.proven(db.epoch):
		db.start()
		s.lane.check.writing(s)
	}
}

// mayStart is the guard's word on a start that was decided at a revision: after
// a CLOSE only a later one.
func (s *site) mayStart(revision int64) bool {
	return s.closed == 0 || revision > s.closed || s.w.opt.Bug == ClosedRestarts
}

// sees takes in a higher epoch: a CLOSE was of the one before.
func (s *site) sees(epoch int64) {
	if epoch > s.seenEpoch {
		s.seenEpoch, s.seenRevision, s.closed = epoch, 0, 0
	}
}

func (s *site) powerOff() {
	s.stopAgent()
	s.db.stop()
	s.db.copying = 0
	s.proof, s.deadline = grant{}, 0
}

func (s *site) powerOn() { s.startAgent() }

// observe is what the driver reports.
func (s *site) observe() failover.Observed {
	db := &s.db
	o := failover.Observed{Role: v1alpha1.RoleNone, State: v1alpha1.StateStopped, Epoch: db.epoch, Guarded: v1alpha1.Unguarded,
		PositionBytes: int64(len(db.log))}
	if s.guarded {
		o.Guarded = v1alpha1.Guarded
	}
	if db.partial { // every driver says so (docs/checklists/new-driver.md)
		o.Copy = v1alpha1.CopyPartial
	}
	switch {
	case db.diverged:
		o.State = v1alpha1.StateDiverged
	case db.copying > s.w.now:
		o.State = v1alpha1.StateCopying
	case s.closed != 0 && !db.running:
		o.State = v1alpha1.StateClosed
	case db.running && db.primary:
		o.Role, o.State = v1alpha1.RolePrimary, v1alpha1.StateRunning
		o.Acknowledges = append(o.Acknowledges, db.waits...)
		for _, t := range s.lane.sites {
			if t != s && db.heard[t.id] > 0 && s.w.now-db.heard[t.id] < time.Second {
				o.Streaming = append(o.Streaming, t.name())
				if db.flushed[t.id] == len(db.log) {
					o.CaughtUp = append(o.CaughtUp, t.name())
				}
			}
		}
	case db.running:
		o.Role, o.State = v1alpha1.RoleReplica, v1alpha1.StateDetached
		lag := int64((s.w.now-db.caughtUpAt)/time.Second) + 1
		o.LagSeconds = &lag
		if s.w.now-db.receivedAt < time.Second {
			o.State = v1alpha1.StateStreaming
			o.LagBytes = new(int64)
		}
	}
	return o
}
