package sim

import (
	"time"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/pledge"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// startPledging is what a replica of the agent knows when it becomes active.
func (s *site) startPledging() {
	if !s.w.opt.Pledges {
		return
	}
	s.epochAtStart = s.seenEpoch
	s.collector = pledge.NewCollector(s.w.lease)
	began := s.now()
	if s.w.opt.Bug == StartNotCounted {
		began -= s.w.lease.OverAfter()
	}
	s.promises = pledge.NewBook(s.w.lease, began)
}

// holdRole names the role to keep; the copy may wait for more standbys than the
// grant knows of.
func (s *site) holdRole() {
	if !s.role.primary {
		s.collector.Lose()
		return
	}
	s.collector.Hold(pledge.Role{Incarnation: s.role.stamp.Incarnation, Epoch: s.role.epoch, Pledgers: s.pledgers()})
}

// pledgers are whose pledge this primary needs.
func (s *site) pledgers() []string {
	var waits []string
	if s.db.primary && s.db.epoch == s.role.epoch && s.w.opt.Bug != WaitsForgotten {
		waits = s.db.waits
	}
	return pledge.Needed(s.name(), s.role.pledgers, waits)
}

// askPledgers asks when it is due, each half tick.
func (s *site) askPledgers() {
	if s.collector == nil || s.w.opt.Bug == NobodyAsked {
		return
	}
	s.holdRole()
	if !s.collector.Due(s.holder.Deadline(), s.now()) {
		return
	}
	c, seq, role := s.collector, s.collector.Ask(s.now()), s.collector.Role()
	for _, name := range role.Pledgers {
		t := s.lane.sites[siteOf(name)]
		s.w.send(s.id, t.id, func() {
			if !t.works() || !t.pledge(role) {
				return
			}
			s.w.send(t.id, s.id, func() {
				if s.w.opt.Bug == PledgeFromAnswer {
					seq = c.Ask(s.now())
				}
				c.Answer(name, seq, role.Incarnation, role.Epoch)
			})
		})
	}
}

// pledge is the answer of this site's agent. What it has seen of the dataset is
// durable.
func (s *site) pledge(role pledge.Role) bool {
	s.promises.Granted(s.holder.Stamp().Incarnation)
	forgotten := s.w.opt.Bug == EpochForgotten && s.seenEpoch == s.epochAtStart
	if s.w.opt.Bug != PledgeForOlderEpoch && !forgotten {
		s.promises.Saw(s.lane.dataset().String(), s.seenEpoch)
	}
	r := pledge.Request{Incarnation: role.Incarnation, Epoch: role.Epoch, For: s.w.lease.TTL}
	return s.promises.Ask(s.lane.dataset().String(), r, s.now()) == pledge.Pledged
}

// promised is true while a primary elsewhere may count on this site.
func (s *site) promised() bool {
	return s.promises != nil && s.w.opt.Bug != PromotionDuringPledge && !s.promises.Free(s.lane.dataset().String(), s.now())
}

// withhold acknowledges an epoch when the last pledge for an older one is over.
func (s *site) withhold() failover.Result {
	if s.promised() {
		return failover.Result{Outcome: failover.Failed, Message: "the last pledge is not over"}
	}
	return failover.Result{Outcome: failover.Done, Message: "no pledge is given or runs"}
}

// roleEnds is until when the agent answers guards with its role: the lease or,
// for a primary, the pledges.
func (s *site) roleEnds() time.Duration {
	ends := time.Duration(0)
	if s.holder.Holds(s.now()) {
		ends = s.holder.Deadline()
	}
	if s.collector == nil || !s.role.primary {
		return ends
	}
	if s.w.opt.Bug == MissingPledgerTolerated && len(s.collector.Missing(s.now())) == 1 {
		return max(ends, s.now()+s.w.lease.TTL)
	}
	if kept, ok := s.collector.Deadline(); ok {
		ends = max(ends, kept)
	}
	return ends
}

// agentAddress is where agents reach each other.
func (w *world) agentAddress(name string) string {
	if w.opt.Pledges {
		return name
	}
	return ""
}

// pledgers are who a grant of the role to cluster names.
func (m *member) pledgers(d *v1alpha1.Dataset, cluster string) []string {
	if (d.Status.Failsafe || m.w.opt.Bug == OfferedBeforeCommit) && m.w.opt.Pledges && holdsPrimary(d, cluster) {
		return failover.Pledgers(m.fleet(), d)
	}
	return nil
}
