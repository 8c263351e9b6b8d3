package delta

import (
	"fmt"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Roles are those of the newest grant, put together from the differences. The zero
// value holds none.
type Roles struct {
	held  *agentv1.RolesHeld // nil while what is held has no version
	roles []*agentv1.RoleGrant
}

// Held is what the next heartbeat names; nil asks for all roles.
func (r *Roles) Held() *agentv1.RolesHeld { return r.held }

// Forget has the next heartbeat ask for all roles.
func (r *Roles) Forget() { r.held, r.roles = nil, nil }

// Take returns a grant with all its roles for one that may be a difference. Grants come
// in the order of their stamps; of two with the same stamp the higher version counts.
// A role that has not changed is the same message as before.
func (r *Roles) Take(g *agentv1.Grant) (*agentv1.Grant, error) {
	switch {
	case r.held.GetVersion() > g.GetVersion() && g.GetVersion() > 0 && r.of(g):
		return whole(g, r.roles), nil
	case g.GetSince() == 0:
		r.roles = g.GetRoles()
	case !r.of(g) || r.held.GetVersion() < g.GetSince():
		return nil, fmt.Errorf("the grant of term %d says what has changed since version %d: held is version %d of term %d",
			g.GetTerm(), g.GetSince(), r.held.GetVersion(), r.held.GetTerm())
	default:
		if merged := merge(r.roles, g); len(merged) == int(g.GetTotal()) {
			r.roles = merged
		} else {
			return nil, fmt.Errorf("the grant of term %d speaks of %d roles: with what has changed since version %d there are %d",
				g.GetTerm(), g.GetTotal(), g.GetSince(), len(merged))
		}
	}
	r.held = nil
	if g.GetVersion() > 0 {
		r.held = &agentv1.RolesHeld{Incarnation: g.GetIncarnation(), Term: g.GetTerm(), Version: g.GetVersion()}
	}
	return whole(g, r.roles), nil
}

// of is true when what is held was counted by who has given g.
func (r *Roles) of(g *agentv1.Grant) bool {
	return r.held != nil && r.held.GetIncarnation() == g.GetIncarnation() && r.held.GetTerm() == g.GetTerm()
}

func whole(g *agentv1.Grant, roles []*agentv1.RoleGrant) *agentv1.Grant {
	return &agentv1.Grant{Seq: g.GetSeq(), TtlMillis: g.GetTtlMillis(), Incarnation: g.GetIncarnation(), Term: g.GetTerm(),
		Revision: g.GetRevision(), Version: g.GetVersion(), Total: uint32(len(roles)), Roles: roles}
}

type roleKey struct{ namespace, name string }

func keyOf(d *agentv1.DatasetKey) roleKey { return roleKey{d.GetNamespace(), d.GetName()} }

// merge is roles with what a difference says; roles stays as it is.
func merge(roles []*agentv1.RoleGrant, g *agentv1.Grant) []*agentv1.RoleGrant {
	if len(g.GetRoles()) == 0 && len(g.GetGone()) == 0 {
		return roles
	}
	news := make(map[roleKey]*agentv1.RoleGrant, len(g.GetRoles())+len(g.GetGone()))
	for _, key := range g.GetGone() {
		news[keyOf(key)] = nil
	}
	for _, role := range g.GetRoles() {
		news[keyOf(role.GetDataset())] = role
	}
	merged := make([]*agentv1.RoleGrant, 0, len(roles)+len(g.GetRoles()))
	for _, old := range roles {
		key := keyOf(old.GetDataset())
		role, changed := news[key]
		switch {
		case !changed:
			merged = append(merged, old)
		case role != nil:
			merged = append(merged, role)
		}
		delete(news, key)
	}
	for _, role := range g.GetRoles() { // those that are new, in the order in which they are told
		if _, left := news[keyOf(role.GetDataset())]; left {
			merged = append(merged, role)
		}
	}
	return merged
}
