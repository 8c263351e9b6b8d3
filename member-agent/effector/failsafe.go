package effector

import (
	"context"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// proof answers a guard's question at now: with what is left of the lease or, for a
// primary that holds its role already, of the pledges that keep it. Without a
// question there is only the lease: whom the copy waits for belongs to the moment
// of asking. So a standby that was confirmed after it, and that the hub may then
// promote without a further proof, is promoted only when the answer has run out: the
// heartbeat that told of it renewed the lease later than the guard asked.
//
// A recalled grant keeps a database that runs and starts none: where two people have
// sworn that the machines are without power, an agent that starts with them must not
// live on pledges of a role that was given away meanwhile.
func (e *Effector) proof(k key, ask *agentv1.ProofRequest, now time.Time) *agentv1.Proof {
	p := e.grants.proof(k, now)
	role, grant, recalled := e.grants.primary(k)
	if role.GetFailsafe() == nil || ask.GetHeldEpoch() != role.GetEpoch() || recalled && !ask.GetRunning() {
		return p
	}
	kept := e.cfg.Pledges.Kept(role.GetDataset(), role.GetEpoch(), ask.GetWaitsFor()).Milliseconds()
	if kept <= p.GetRemainingMillis() {
		return p
	}
	return &agentv1.Proof{RemainingMillis: kept, Incarnation: grant.GetIncarnation(), Revision: grant.GetRevision(), Role: role}
}

// primary returns the role that the newest grant names, if it is the primary's, also
// when its lease is over; and the grant.
func (s *grants) primary(k key) (role *agentv1.RoleGrant, grant *agentv1.Grant, recalled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if role := s.byKey[k]; role.GetRole() == agentv1.Role_ROLE_PRIMARY {
		return role, s.latest, s.recalled
	}
	return nil, nil, false
}

// recall takes the grant of an earlier life of the agent, before any other.
func (s *grants) recall(g *agentv1.Grant, now time.Time) {
	s.take(g, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recalled = true
}

// noPledges keeps nothing and promises nothing.
type noPledges struct{}

func (noPledges) Granted(*agentv1.Grant, time.Duration) {}
func (noPledges) Saw(*agentv1.DatasetKey, int64)        {}

func (noPledges) Kept(*agentv1.DatasetKey, int64, []string) time.Duration { return 0 }

func (noPledges) Yield(context.Context, uint64, *agentv1.DatasetKey, int64) error { return nil }

func (noPledges) Pledgers(*agentv1.DatasetKey) (needed, missing []string) { return nil, nil }
