package failover

import (
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Approved is the judgement on the approvals of a run.
type Approved struct {
	Enough   bool
	Rejected string   // by whom, or empty
	By       []string // who counts
	// Missing says what is still needed and why others do not count.
	Missing string
}

// CountApprovals judges the approvals of subject (a run, or a dataset's copy to
// be discarded) for step. The approver is who the server stamped. The requester
// counts only to withdraw the request. An approval does not count that is older than
// the policy's expiry, was made before since, or accepts less loss than was shown.
func CountApprovals(s *Snapshot, policy v1alpha1.ApprovalPolicy, subject, step, requester string, since time.Time, loss *v1alpha1.LossEstimate) Approved {
	q := question{policy: policy, requester: requester, since: since, loss: loss, required: int(max(1, policy.Required)), noun: "approvals"}
	return q.count(s, subject, func(a *v1alpha1.Approval) bool {
		return a.Spec.Step == step || a.Spec.Step == "" && step != stepResume
	})
}

// question is what people are asked.
type question struct {
	policy    v1alpha1.ApprovalPolicy
	requester string
	since     time.Time
	loss      *v1alpha1.LossEstimate
	required  int
	noun      string // what their answers are called
}

// count judges the answers among what was said of subject.
func (q question) count(s *Snapshot, subject string, answers func(*v1alpha1.Approval) bool) Approved {
	out := Approved{}
	for _, a := range s.indexed().approvals[subject] {
		if !answers(a) {
			continue
		}
		if why := q.discount(s, a); why != "" {
			out.Missing += fmt.Sprintf("%s does not count: %s; ", a.Name, why)
			continue
		}
		if a.Spec.Decision == v1alpha1.DecisionReject {
			out.Rejected = a.Spec.Approver
			continue
		}
		if !slices.Contains(out.By, a.Spec.Approver) {
			out.By = append(out.By, a.Spec.Approver)
		}
	}
	slices.Sort(out.By)
	out.Enough = len(out.By) >= q.required && out.Rejected == ""
	if !out.Enough {
		out.Missing += fmt.Sprintf("%d of %d %s", len(out.By), q.required, q.noun)
	}
	return out
}

// discount says why an answer does not count.
func (q question) discount(s *Snapshot, a *v1alpha1.Approval) string {
	expire := time.Duration(q.policy.ExpireSeconds) * time.Second
	if expire <= 0 {
		expire = 15 * time.Minute
	}
	made := a.CreationTimestamp.Time
	switch {
	case a.Spec.Approver == "":
		return "the server stamped no approver"
	case a.Spec.Approver == q.requester && a.Spec.Decision != v1alpha1.DecisionReject:
		return "the requester cannot approve"
	case s.Now.Sub(made) > expire:
		return "it has expired"
	case made.Before(q.since.Truncate(time.Second)):
		return "it was made before the question was asked"
	case len(q.policy.Groups) > 0 && !intersects(q.policy.Groups, a.Spec.ApproverGroups):
		return fmt.Sprintf("%s is in none of the groups %v", a.Spec.Approver, q.policy.Groups)
	case a.Spec.Decision == v1alpha1.DecisionApprove && !q.loss.AcceptedBy(a.Spec.AcceptLoss):
		if accepted := a.Spec.AcceptLoss; accepted != nil && accepted.Seconds >= q.loss.Seconds {
			return "it does not say that the loss may be unknown: tripodctl approve --accept-loss unknown"
		}
		return "it does not accept the possible loss: " + extent(q.loss)
	}
	return ""
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(v string) bool { return slices.Contains(b, v) })
}

// policyOf is the approval policy of a run's plan, or the default.
func (s *Snapshot) policyOf(run *v1alpha1.RecoveryRun) v1alpha1.ApprovalPolicy {
	for _, p := range s.Plans {
		if p.Name == run.Spec.Plan {
			return p.Spec.Approvals
		}
	}
	return v1alpha1.ApprovalPolicy{Required: 1, ExpireSeconds: 900}
}
