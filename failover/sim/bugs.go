package sim

import (
	"math"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Bug is planted to show that the checks can fail.
type Bug int

// Bugs.
const (
	None Bug = iota
	// LeaseNotWaitedFor: the time fence says over at once.
	LeaseNotWaitedFor
	// CoverageIgnored: an unguarded side counts as guarded.
	CoverageIgnored
	// ShrinkBeforeCommit: the primary is told to stop waiting for a standby
	// before the smaller sync set is committed.
	ShrinkBeforeCommit
	// GrowWithoutConfirmation: a standby that streams is taken for one that the
	// primary waits for.
	GrowWithoutConfirmation
	// EffectorIgnoresEpoch: an agent does what it is told, however old.
	EffectorIgnoresEpoch
	// BreakerDisabled: losses in several centers are acted upon one by one.
	BreakerDisabled
	// BreakerForgets: a new leader does not ask which losses healed before its term.
	BreakerForgets
	// StepHasItsEffectTwice: a repeated promotion is done again.
	StepHasItsEffectTwice
	// DeadlineFromAnswer: the agent counts its lease from the answer.
	DeadlineFromAnswer
	// NoConcurrencyControl: a write from a stale read goes through.
	NoConcurrencyControl
	// AsynchronousIsSafe: any member counts as one of the sync set.
	AsynchronousIsSafe
	// GuardDoesNotKill: a guard reports coverage and enforces nothing.
	GuardDoesNotKill
	// PromoteWithoutFencing: the permission to promote is committed together
	// with the decision.
	PromoteWithoutFencing
	// CatchUpNotProven: the target of a switchover says that it holds what it is
	// asked for, whatever it holds.
	CatchUpNotProven
	// ClosedRestarts: a primary that was closed is started like any that stopped.
	ClosedRestarts
	// CloseAtOlderEpoch: a CLOSE is obeyed at any time.
	CloseAtOlderEpoch
	// ReturnWithinEpoch: a switchover that returns commits no epoch of its own.
	ReturnWithinEpoch
	// ReturnWithoutFence: it does not fence the target, which may be promoted.
	ReturnWithoutFence
	// PromotedOpen: the target does not wait for the source until it is opened.
	PromotedOpen
	// ReturnAfterOpen: it returns although clients may write at the target.
	ReturnAfterOpen
	// HoldIgnored: nobody is ever held, however short a time it has been heard.
	HoldIgnored
	// PartLooksWhole: a part of a copy is taken for one that stands still.
	PartLooksWhole
	// TakenWithoutFence: a run that was ordered instead of another does not fence that
	// one's target, which may be promoted.
	TakenWithoutFence
	// NamedLongAgo: what a target acknowledged before another copy took its place is
	// counted from the newest renewal.
	NamedLongAgo
	bugs
)

// Bugs of pledges, planted where agents live on them.
const (
	firstOfPledges = bugs + 1 + iota
	// NobodyAsked: the agent lets its role end with the lease.
	NobodyAsked
	// PledgeFromAnswer: the primary counts a pledge from the answer.
	PledgeFromAnswer
	// MissingPledgerTolerated: it goes on although one pledge is missing.
	MissingPledgerTolerated
	// PromotionDuringPledge: a pledger does not keep its promise.
	PromotionDuringPledge
	// PledgeForOlderEpoch: a pledger that has seen a newer epoch pledges.
	PledgeForOlderEpoch
	// StartNotCounted: a replica that becomes active forgets what was promised.
	StartNotCounted
	// PledgesIgnored: the engine takes elapsed time for a proof all the same.
	PledgesIgnored
	// WaitsForgotten: the primary asks only whom its last grant names.
	WaitsForgotten
	// EpochForgotten: a replica that becomes active does not know what the one
	// before it has acknowledged.
	EpochForgotten
	// AloneIsAskedByNobody: a primary that is alone in the sync set counts as one
	// that lives on no pledge.
	AloneIsAskedByNobody
	// OfferedBeforeCommit: grants offer pledges before it is committed that they may.
	OfferedBeforeCommit
	// LossForgotten: every copy counts as one that had everything a moment ago.
	LossForgotten
	// LossNotKept: what is lost when the old primary has stopped is not compared with
	// what was accepted.
	LossNotKept
	// LingererForgotten: a third copy is taken, and nobody asks whether the old primary
	// lives on the pledge of the target that never was promoted.
	LingererForgotten
	lastOfPledges
)

// Bugs of plans, hooks, attestation and drills, planted where plans are.
const (
	firstOfPlans = lastOfPledges + 1 + iota
	// WavesIgnored: all applications count as ones of the first wave.
	WavesIgnored
	// DependenciesIgnored: nobody waits for what an application depends on.
	DependenciesIgnored
	// ParallelismIgnored: a wave has no limit.
	ParallelismIgnored
	// PauseIgnored: a plan's run that a person has paused goes on.
	PauseIgnored
	// ApprovalAssumed: a plan's run counts as approved when it is ordered.
	ApprovalAssumed
	// HooksForgotten: the engine does not see the plan's hooks.
	HooksForgotten
	// HookFailureIgnored: a hook that failed, or is not done in time, counts as done.
	HookFailureIgnored
	// HookAbortsLate: a hook that says Abort ends a run that has changed the role.
	HookAbortsLate
	// OneAttests: the word of one person counts as that of two.
	OneAttests
	// RequesterAttests: who ordered the run counts.
	RequesterAttests
	// DrillNotCleaned: a drill ends without removing its copies.
	DrillNotCleaned
	// DrillGoesOn: a drill does not give way to a move.
	DrillGoesOn
	lastOfPlans
)

func (b Bug) String() string {
	if b > firstOfPlans {
		return [...]string{"WavesIgnored", "DependenciesIgnored", "ParallelismIgnored", "PauseIgnored", "ApprovalAssumed", "HooksForgotten",
			"HookFailureIgnored", "HookAbortsLate", "OneAttests", "RequesterAttests", "DrillNotCleaned", "DrillGoesOn"}[b-firstOfPlans-1]
	}
	if b > firstOfPledges {
		return [...]string{"NobodyAsked", "PledgeFromAnswer", "MissingPledgerTolerated", "PromotionDuringPledge", "PledgeForOlderEpoch",
			"StartNotCounted", "PledgesIgnored", "WaitsForgotten", "EpochForgotten", "AloneIsAskedByNobody", "OfferedBeforeCommit", "LossForgotten", "LossNotKept",
			"LingererForgotten"}[b-firstOfPledges-1]
	}
	return [...]string{"None", "LeaseNotWaitedFor", "CoverageIgnored", "ShrinkBeforeCommit", "GrowWithoutConfirmation", "EffectorIgnoresEpoch",
		"BreakerDisabled", "BreakerForgets", "StepHasItsEffectTwice", "DeadlineFromAnswer", "NoConcurrencyControl", "AsynchronousIsSafe", "GuardDoesNotKill", "PromoteWithoutFencing",
		"CatchUpNotProven", "ClosedRestarts", "CloseAtOlderEpoch", "ReturnWithinEpoch", "ReturnWithoutFence", "PromotedOpen", "ReturnAfterOpen", "HoldIgnored", "PartLooksWhole",
		"TakenWithoutFence", "NamedLongAgo"}[b]
}

// blind plants a bug in what the engine sees.
func (b Bug) blind(s *failover.Snapshot) {
	switch b {
	case CoverageIgnored:
		d := s.Datasets[0].DeepCopy()
		for i := range d.Status.Members {
			d.Status.Members[i].Guarded = v1alpha1.Guarded
		}
		s.Datasets[0] = d
		for c, o := range s.Observed {
			o.Guarded = v1alpha1.Guarded
			s.Observed[c] = o
		}
	case GrowWithoutConfirmation:
		d := s.Datasets[0].DeepCopy()
		if o := s.Observed[failover.Copy{Dataset: datasetNames[0], Cluster: d.Status.Primary}]; d.Status.Phase == v1alpha1.DatasetSteady {
			for _, name := range o.Streaming {
				if name != places[2] && !slices.Contains(d.Status.SyncSet, name) {
					d.Status.SyncSet = append(d.Status.SyncSet, name)
				}
			}
		}
		s.Datasets[0] = d
	case ReturnAfterOpen:
		d := s.Datasets[0]
		for i, r := range s.Runs {
			if d.Status.Phase == v1alpha1.DatasetSteady && r.Status.Phase == v1alpha1.RunRouting && r.Spec.Action.Planned() &&
				d.Status.Primary == r.Status.Datasets[0].Target {
				s.Runs[i], s.Datasets[0] = r.DeepCopy(), d.DeepCopy()
				s.Runs[i].Status.Phase = v1alpha1.RunPromoting
				s.Datasets[0].Status.Phase, s.Datasets[0].Status.Run = v1alpha1.DatasetPromoting, r.Name
			}
		}
	case PartLooksWhole, HoldIgnored:
		b.blindTo(s)
	case NamedLongAgo:
		if d := s.Datasets[0]; d.Status.UnsettledAfter > 0 {
			s.Datasets[0] = d.DeepCopy()
			s.Datasets[0].Status.UnsettledAfter = math.MaxInt64
		}
	case AsynchronousIsSafe:
		d := s.Datasets[0].DeepCopy()
		if d.Status.Phase == v1alpha1.DatasetSteady {
			d.Status.SyncSet = slices.Clone(places[:])
		}
		s.Datasets[0] = d
	}
}

// blindTo plants a bug in what is known of the members.
func (b Bug) blindTo(s *failover.Snapshot) {
	d := s.Datasets[0].DeepCopy()
	s.Datasets[0] = d
	for i := range d.Status.Members {
		if b == PartLooksWhole {
			d.Status.Members[i].Copy = v1alpha1.CopyWhole
		} else {
			d.Status.Members[i].HeldSince = nil
		}
	}
	for c, o := range s.Observed {
		if b == PartLooksWhole && o.Copy == v1alpha1.CopyPartial {
			o.Copy = ""
			if o.State == v1alpha1.StateCopying {
				o.State = v1alpha1.StateStopped
			}
			s.Observed[c] = o
		}
	}
	for name, sight := range s.Fleet.Sightings {
		if b == HoldIgnored {
			sight.Stable = time.Hour
			s.Fleet.Sightings[name] = sight
		}
	}
}

// blindToPledges plants a bug of pledges in what the engine sees.
func (b Bug) blindToPledges(s *failover.Snapshot) {
	d := s.Datasets[0].DeepCopy()
	fencing := d.Status.Phase == v1alpha1.DatasetFencing
	switch {
	case b == PledgesIgnored && fencing:
		d.Status.Failsafe = false
	case b == LingererForgotten:
		d.Status.Lingers = ""
	case b == LossForgotten || b == LossNotKept && fencing:
		for c, o := range s.Observed {
			o.Held = new(time.Duration)
			s.Observed[c] = o
		}
		return
	case b == OfferedBeforeCommit:
		d.Status.Failsafe = false // the commit is never made
		s.Config.Pledges = false
	case b == AloneIsAskedByNobody && fencing && len(d.Status.SyncSet) == 1:
		d.Status.SyncSet = append(d.Status.SyncSet, d.Status.Primary)
	default:
		return
	}
	s.Datasets[0] = d
}

// twist plants a bug in what the engine wants, and lists its writes.
func (b Bug) twist(m *member, e failover.Effects) ([]failover.Command, []metav1.Object) {
	var writes []metav1.Object
	if b == GrowWithoutConfirmation {
		e.Commands = slices.DeleteFunc(e.Commands, func(c failover.Command) bool { return c.Verb == failover.VerbSetSyncSet })
	}
	if b == PromotedOpen {
		for i, c := range e.Commands {
			if c.Verb == failover.VerbPromote && c.Cluster != m.state.units[laneOf(c.Dataset.Name)].dataset.Status.PreviousPrimary {
				e.Commands[i].SyncSet = []string{c.Cluster}
			}
		}
	}
	for _, d := range e.Datasets {
		old := m.state.unit(d).dataset
		run := m.state.runs[d.Status.Run]
		returns, instead := run != nil && run.Spec.Action.Planned(), run != nil && run.Spec.InsteadOf != ""
		switch {
		case b == ShrinkBeforeCommit && len(d.Status.SyncTarget) < len(old.Status.SyncTarget) && d.Status.Epoch == old.Status.Epoch && d.Status.Phase == v1alpha1.DatasetSteady:
			e.Commands = append(e.Commands, failover.Command{ID: "early", Every: time.Second, Bound: time.Second, Cluster: d.Status.Primary, Dataset: datasetNames[0],
				Verb: failover.VerbSetSyncSet, Epoch: d.Status.Epoch, SyncSet: append([]string{d.Status.Primary}, d.Status.SyncTarget...), Revision: m.rev + 1})
			continue // the commit comes later
		case b == PromoteWithoutFencing && d.Status.Phase == v1alpha1.DatasetFencing:
			d.Status.Phase, d.Status.FenceProof = v1alpha1.DatasetPromoting, v1alpha1.FenceElapsed
		case (b == ReturnWithoutFence && returns || b == TakenWithoutFence && instead) && old.Status.Phase == v1alpha1.DatasetPromoting && d.Status.Phase == v1alpha1.DatasetFencing:
			d.Status.Phase, d.Status.FenceProof = v1alpha1.DatasetPromoting, v1alpha1.FenceNotGranted
		case b == ReturnWithinEpoch && returns && d.Status.Epoch > old.Status.Epoch && old.Status.Phase != v1alpha1.DatasetSteady && old.Status.Phase != v1alpha1.DatasetClosing && old.Status.Epoch > 0:
			d.Status.Epoch = old.Status.Epoch
		}
		writes = append(writes, d)
	}
	for _, r := range e.Create {
		writes = append(writes, r)
	}
	for _, r := range e.Runs {
		if r = b.twistRun(m, r); r != nil {
			writes = append(writes, r)
		}
	}
	for _, g := range e.Services {
		writes = append(writes, g)
	}
	for _, a := range e.Applications {
		writes = append(writes, a)
	}
	return e.Commands, writes
}
