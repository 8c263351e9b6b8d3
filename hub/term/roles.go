package term

import (
	"iter"
	"maps"
	"slices"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// rolesOf are what a committed dataset gives to each of its clusters. It is a pure
// function: the primary role goes to status.primary in the phases Steady, Closing and
// Promoting and to nobody otherwise (safety.md section 6, step 1). Terms add under
// which pledges may keep it.
func rolesOf(d *v1alpha1.Dataset, terms Terms) iter.Seq2[string, *agentv1.RoleGrant] {
	return func(yield func(string, *agentv1.RoleGrant) bool) {
		for i := range d.Spec.Members {
			member := &d.Spec.Members[i]
			grant := roleGrant(d, member)
			terms.failsafe(d, grant)
			if !yield(member.Cluster, grant) {
				return
			}
		}
	}
}

func roleGrant(d *v1alpha1.Dataset, self *v1alpha1.DatasetMember) *agentv1.RoleGrant {
	grant := &agentv1.RoleGrant{
		Dataset:    &agentv1.DatasetKey{Namespace: d.Namespace, Name: d.Name},
		Epoch:      d.Status.Epoch,
		Role:       roleOf(d, self.Cluster),
		Driver:     d.Spec.Driver,
		Address:    self.Address,
		Parameters: maps.Clone(self.Parameters),
		Protection: protection(d.Spec.Protection),
	}
	// Until a role change has settled, the committed set is the epoch before's:
	// a replica must not take it for this one's.
	if d.Status.Phase == v1alpha1.DatasetSteady || d.Status.Phase == v1alpha1.DatasetClosing {
		grant.SyncSet = slices.Clone(d.Status.SyncSet)
	}
	// While nobody is primary there is nobody to follow: a replica stays with
	// what it has. So it does while a switchover can still return.
	named := hasPrimary(d) && (!unopened(d) || self.Cluster == d.Status.Primary)
	for _, m := range d.Spec.Members {
		if named && m.Cluster == d.Status.Primary {
			grant.Primary, grant.PrimaryAddress = m.Cluster, m.Address
		}
		if m.Cluster != self.Cluster {
			grant.Peers = append(grant.Peers, &agentv1.DatasetPeer{
				Cluster: m.Cluster, Address: m.Address, Asynchronous: m.Link == v1alpha1.LinkAsynchronous,
			})
		}
	}
	return grant
}

func hasPrimary(d *v1alpha1.Dataset) bool {
	switch d.Status.Phase {
	case v1alpha1.DatasetSteady, v1alpha1.DatasetClosing, v1alpha1.DatasetPromoting:
		return d.Status.Primary != ""
	}
	return false
}

// unopened is true while the target of a switchover is promoted and not yet open
// for writing. A copy that followed it already would hold a timeline that goes
// with the return.
func unopened(d *v1alpha1.Dataset) bool {
	return d.Status.Phase == v1alpha1.DatasetPromoting && d.Status.CatchUp != nil
}

func roleOf(d *v1alpha1.Dataset, cluster string) agentv1.Role {
	switch {
	case unopened(d) && d.Status.PreviousPrimary == cluster:
		return agentv1.Role_ROLE_NONE
	case hasPrimary(d) && d.Status.Primary == cluster:
		return agentv1.Role_ROLE_PRIMARY
	case hasPrimary(d):
		return agentv1.Role_ROLE_REPLICA
	case d.Status.Phase == v1alpha1.DatasetFencing && d.Status.PreviousPrimary != cluster:
		return agentv1.Role_ROLE_REPLICA
	}
	// A dataset that was never formed, a primary that is being fenced, or a
	// phase of a newer hub.
	return agentv1.Role_ROLE_NONE
}

func protection(p v1alpha1.Protection) agentv1.Protection {
	switch p {
	case v1alpha1.MaxAvailability:
		return agentv1.Protection_PROTECTION_MAX_AVAILABILITY
	case v1alpha1.Asynchronous:
		return agentv1.Protection_PROTECTION_ASYNCHRONOUS
	default: // the schema's default
		return agentv1.Protection_PROTECTION_ZERO_LOSS
	}
}
