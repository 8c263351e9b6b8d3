package effector

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// promotionGrace is how long a directive may stand in for a grant that names
// the new role.
const promotionGrace = 10 * time.Second

// grants holds the latest grant, from which proofs are made.
type grants struct {
	mu        sync.Mutex
	latest    *agentv1.Grant
	byKey     map[key]*agentv1.RoleGrant // of latest
	deadline  time.Time
	recalled  bool // latest is of an earlier life of the agent
	promotion map[key]promotion
	changed   chan struct{}
}

// promotion is a committed PROMOTE that came before the next grant.
type promotion struct {
	role  *agentv1.RoleGrant
	until time.Time
}

func newGrants() *grants {
	return &grants{promotion: map[key]promotion{}, changed: make(chan struct{})}
}

// take keeps g unless it is older than what is held; it reports whether it did.
func (s *grants) take(g *agentv1.Grant, deadline time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.latest; l != nil {
		older := g.GetIncarnation() < l.GetIncarnation() ||
			(g.GetIncarnation() == l.GetIncarnation() && g.GetRevision() < l.GetRevision())
		if older {
			return false
		}
		if g.GetIncarnation() == l.GetIncarnation() && g.GetRevision() == l.GetRevision() && deadline.Before(s.deadline) {
			return false
		}
	}
	s.latest, s.deadline, s.recalled = g, deadline, false
	s.byKey = make(map[key]*agentv1.RoleGrant, len(g.GetRoles()))
	for _, role := range g.GetRoles() {
		s.byKey[keyOf(role.GetDataset())] = role
	}
	s.notifyLocked()
	return true
}

func (s *grants) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// changes returns a channel that is closed at the next change.
func (s *grants) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// alive reports whether the lease of the latest grant runs at now.
func (s *grants) alive(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.deadline)
}

// roles returns the roles last granted, also after the lease has ended: what
// they say is still the latest committed word about each dataset.
func (s *grants) roles() []*agentv1.RoleGrant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest.GetRoles()
}

// promote remembers a committed PROMOTE, to stand in for the next grant.
func (s *grants) promote(k key, role *agentv1.RoleGrant, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promotion[k] = promotion{role, now.Add(promotionGrace)}
	s.notifyLocked()
}

// proof answers for a dataset at now. The role is the grant's.
//
// A directive to promote is a committed decision too and comes up to a tick
// before the grant that names the role. It may stand in for that grant only
// while the grant held names the dataset at the same epoch: then the lease was
// renewed before any later epoch was committed, and whoever commits one counts
// that renewal (safety.md sections 3 and 6). So a directive that was held up on
// its way never makes a lease that was renewed after its epoch was over.
func (s *grants) proof(k key, now time.Time) *agentv1.Proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	remaining := s.deadline.Sub(now)
	if s.latest == nil || remaining <= 0 {
		return nil
	}
	p := &agentv1.Proof{RemainingMillis: remaining.Milliseconds(), Incarnation: s.latest.GetIncarnation(), Revision: s.latest.GetRevision()}
	role := s.byKey[k]
	p.Role = role
	if next, ok := s.promotion[k]; ok && now.Before(next.until) && next.role.GetEpoch() == role.GetEpoch() && role.GetRole() == agentv1.Role_ROLE_REPLICA {
		p.Role = proto.CloneOf(next.role)
		p.Role.Role = agentv1.Role_ROLE_PRIMARY
	}
	return p
}
