package failover

import (
	"fmt"
	"slices"
	"strings"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Approvers are those to whom the hub's RBAC gives the right to approve runs. Who is
// in a group only the directory knows that issues the identities.
type Approvers struct {
	People []string
	Groups []string
}

// noPeople are groups in which there is nobody who could approve.
var noPeople = []string{"system:unauthenticated", "system:nodes", "tripod:agents"}

// quorum asks whether a plan's approvals could be given, as far as the hub can know:
// it knows who holds the right by name, and which groups hold it, not who is in them.
// Administrators (system:masters) hold every right, and are not counted.
func quorum(s *Snapshot, plan *v1alpha1.RecoveryPlan) v1alpha1.PreflightCheck {
	c, policy := check("Approvals", ""), plan.Spec.Approvals
	need := int(max(1, policy.Required))
	machines := slices.DeleteFunc(slices.Clone(policy.Groups), func(g string) bool { return !slices.Contains(noPeople, g) })
	who := s.Approvers
	switch {
	case len(policy.Groups) > 0 && len(machines) == len(policy.Groups):
		fail(&c, fmt.Sprintf("nobody who could approve is in %s: name groups of people", strings.Join(machines, ", ")))
	case who == nil:
	case len(who.People) == 0 && len(who.Groups) == 0:
		fail(&c, "the hub gives nobody the right to approve runs: bind the ClusterRole tripod:approver to a group or to people")
	case len(who.Groups) == 0 && len(who.People) < need:
		fail(&c, fmt.Sprintf("%d people must agree, and the hub gives the right to %d: %s", need, len(who.People), some(who.People)))
	case len(who.Groups) == 0 && len(who.People) == need:
		c.Result = v1alpha1.PreflightWarning
		c.Message = fmt.Sprintf("all %d people who may approve must agree, and who orders a run does not count: give the right to one more", need)
	}
	return c
}
