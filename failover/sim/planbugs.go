package sim

import (
	"slices"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// blindToPlans plants a bug in what the engine sees of plans and of people.
func (b Bug) blindToPlans(s *failover.Snapshot) {
	switch b {
	case WavesIgnored, DependenciesIgnored, ParallelismIgnored, PauseIgnored, ApprovalAssumed, RequesterAttests:
		for i, r := range s.Runs {
			s.Runs[i] = b.blindToRun(r)
		}
	case HooksForgotten:
		for i, p := range s.Plans {
			s.Plans[i] = p.DeepCopy()
			s.Plans[i].Spec.Hooks = nil
		}
	case OneAttests:
		words := slices.Clone(s.Approvals)
		for _, a := range s.Approvals {
			if a.Spec.Step == v1alpha1.StepAttest {
				again := a.DeepCopy()
				again.Spec.Approver += " again"
				words = append(words, again)
			}
		}
		s.Approvals = words
	}
}

func (b Bug) blindToRun(r *v1alpha1.RecoveryRun) *v1alpha1.RecoveryRun {
	n := r.DeepCopy()
	for i := range n.Status.Waves {
		if b == ParallelismIgnored {
			n.Status.Waves[i].Parallelism = 0
		}
	}
	for i := range n.Status.Applications {
		switch a := &n.Status.Applications[i]; b {
		case WavesIgnored:
			a.Wave = 0
		case DependenciesIgnored:
			a.After = nil
		}
	}
	switch plan := n.Spec.ForPlan(); {
	case b == PauseIgnored && plan && n.Status.Reason == failover.ReasonPausedByPerson:
		n.Status.Phase, n.Status.Reason = n.Status.ResumePhase, ""
	case b == ApprovalAssumed && plan && n.Status.Timeline.AwaitingSince != nil:
		n.Status.Timeline.ApprovedAt = n.Status.Timeline.AwaitingSince
		if n.Status.Phase == v1alpha1.RunAwaitingApproval {
			n.Status.Phase = v1alpha1.RunWaves
		}
	case b == RequesterAttests && n.Status.Phase == v1alpha1.RunPaused:
		n.Spec.Requester = "nobody"
	}
	return n
}

// twistRun plants a bug in what the engine wants to write of a run; nil is nothing.
func (b Bug) twistRun(m *member, r *v1alpha1.RecoveryRun) *v1alpha1.RecoveryRun {
	drills := r.Spec.Action == v1alpha1.ActionDrill
	switch st := &r.Status; {
	case b == WavesIgnored || b == DependenciesIgnored || b == ParallelismIgnored:
		// What the bug did not see is not taken away.
		if old := m.state.runs[r.Name]; old != nil {
			for i := range old.Status.Applications {
				st.Applications[i].Wave, st.Applications[i].After = old.Status.Applications[i].Wave, old.Status.Applications[i].After
			}
		}
	case b == HookAbortsLate && st.Phase == v1alpha1.RunPaused && st.Reason == failover.ReasonHookFailed && !r.Spec.Action.Planned():
		st.Phase = v1alpha1.RunAborted
	case b == DrillNotCleaned && drills && st.Phase == v1alpha1.RunCleaning:
		st.Phase = v1alpha1.RunCompleted
	case b == DrillGoesOn && drills && st.Phase == v1alpha1.RunCleaning && st.Reason == failover.ReasonGivesWay:
		return nil
	}
	return r
}
