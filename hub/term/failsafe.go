package term

import (
	"slices"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Place is where a cluster is, and where its agent answers other agents.
type Place struct {
	Cluster, Region, AgentAddress string
}

// Pledgers names whose pledge may keep the primary of d while no hub renews its
// lease (safety.md section 7). It is pure.
type Pledgers func(places []Place, d *v1alpha1.Dataset) []string

// Terms are what grants of the primary role say of pledges. The zero value offers
// none: every role ends with its lease.
type Terms struct {
	Places   []Place
	Pledgers Pledgers
}

func places(clusters []*v1alpha1.Cluster) []Place {
	all := make([]Place, 0, len(clusters))
	for _, c := range clusters {
		all = append(all, Place{c.Name, c.Spec.Region, c.Spec.AgentAddress})
	}
	return all
}

// failsafe completes the grant of a primary role, if it is committed that pledges may
// keep it: whoever fences it later then knows.
func (t Terms) failsafe(d *v1alpha1.Dataset, grant *agentv1.RoleGrant) {
	if t.Pledgers == nil || !d.Status.Failsafe || grant.GetRole() != agentv1.Role_ROLE_PRIMARY {
		return
	}
	grant.Failsafe = &agentv1.Failsafe{Pledgers: t.Pledgers(t.Places, d)}
	for _, peer := range grant.GetPeers() {
		if i := slices.IndexFunc(t.Places, func(p Place) bool { return p.Cluster == peer.GetCluster() }); i >= 0 {
			peer.AgentAddress = t.Places[i].AgentAddress
		}
	}
}
