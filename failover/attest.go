package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// attesters is how many people must swear at least.
const attesters = 2

// CountAttestations judges who swears that cluster is without power. What counts for
// an approval counts here: the identity that the server stamped, the plan's groups,
// the expiry; never the requester; nothing from before the question. Two different
// people are needed, however few the plan asks for otherwise. One who rejects doubts
// it, and then nobody's word counts.
func CountAttestations(s *Snapshot, policy v1alpha1.ApprovalPolicy, run, cluster, requester string, since time.Time) Approved {
	q := question{policy: policy, requester: requester, since: since, required: max(attesters, int(policy.Required)), noun: "attestations"}
	return q.count(s, run, func(a *v1alpha1.Approval) bool { return attests(a, cluster) })
}

func attests(a *v1alpha1.Approval, cluster string) bool {
	return a.Spec.Step == v1alpha1.StepAttest && a.Spec.PoweredOff == cluster
}

// attested looks for the last of the proofs of safety.md section 6: people who swear
// that the cluster of the old primary has no power. Who is heard has power, whatever
// anybody swears.
func (x *step) attested(cluster string) Approved {
	if class := x.det.Classes[cluster]; class != Lost && class != "" {
		return Approved{Missing: cluster + " is heard"}
	}
	run := x.was.Run
	since := run.CreationTimestamp.Time
	for _, j := range run.Status.Steps {
		if j.Name == stepFence && j.StartedAt.After(since) {
			since = j.StartedAt.Time
		}
	}
	return CountAttestations(x.Snapshot, x.policyOf(run), run.Name, cluster, run.Spec.Requester, since)
}

// sworn is the proof by attestation for d, empty without one.
func (x *step) sworn(d *v1alpha1.Dataset, cluster string, revision int64) finding {
	word := x.attested(cluster)
	if !word.Enough {
		return finding{}
	}
	if grown := x.lossGrown(d, cluster, revision); grown.text != "" {
		return grown
	}
	for _, a := range x.indexed().approvals[x.was.Run.Name] {
		if attests(a, cluster) && slices.Contains(word.By, a.Spec.Approver) {
			x.note(NoteApproval, a.Spec.Approver, fmt.Sprintf("attests in %s that %s is without power: %s", a.Name, cluster, a.Spec.Comment), 0)
		}
	}
	return finding{proof: v1alpha1.FenceAttested, text: fmt.Sprintf("%s attest that every machine of %s is without power", strings.Join(word.By, " and "), cluster)}
}

// attestHint says how a person can prove what nothing else proves.
func (x *step) attestHint(cluster string) string {
	return fmt.Sprintf("; or, if every machine of %s is without power, two people swear it, neither of whom requested the run: tripodctl attest %s", cluster, x.was.Run.Name)
}
