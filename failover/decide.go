package failover

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Reasons of a run's status.
const (
	ReasonRejected      = "Rejected"
	ReasonSourceBack    = "SourceIsBack"
	ReasonOvertaken     = "Overtaken"
	ReasonUnsupported   = "Unsupported"
	ReasonNothingToDo   = "NothingToDo"
	ReasonNoTarget      = "NoTarget"
	ReasonApproval      = "ApprovalNeeded"
	ReasonBreaker       = "BreakerOpen"
	ReasonFenceUnproven = "FenceUnproven"
	ReasonLossGrown     = "LossGrown"
	ReasonTargetLost    = "TargetLost"
	ReasonRefused       = "Refused"
	ReasonUnverified    = "Unverified"
	ReasonAborted       = "AbortedByPerson"
	ReasonTooLate       = "TooLateToAbort"
	ReasonPauseLimit    = "PauseLimit"
	ReasonSourceLost    = "SourceLost"
	ReasonNotClosed     = "NotClosed"
	ReasonReturns       = "Returns"
	ReasonHeld          = "Held"
	ReasonHomeAway      = "HomeNotHealthy"
	ReasonNotCaughtUp   = "HomeNotCaughtUp"
	ReasonNoHome        = "NoHome"
)

// Decide returns the run that the loss of clusters asks for, or nil and, when
// there was a loss, why none is started. It creates automatic runs only for
// losses within one center (invariant I4). Without a loss it may be a failback,
// where the policy asks for it. Runs of one application and epoch
// have one name, so that two leaders cannot make two.
func Decide(s *Snapshot, det Detection, app *v1alpha1.Application) (*v1alpha1.RecoveryRun, string) {
	lost := s.lostDatasets(det, app)
	if len(lost) == 0 {
		return homecoming(s, det, app), s.unconfirmed(det, app)
	}
	from := lost[0].Status.Primary
	switch {
	case s.activeRun(app) != nil:
		return nil, ""
	case det.Breaker != "":
		return nil, det.Breaker
	case det.Waiting != "":
		return nil, det.Waiting
	}
	target, why := Choose(s, det, app, lost)
	if why != "" {
		return nil, fmt.Sprintf("%s is lost: %s", from, why)
	}
	if s.manual(app, from, target.Cluster) {
		return nil, fmt.Sprintf("%s is lost and the policy is Manual: start it with tripodctl failover %s/%s --to %s", from, app.Namespace, app.Name, target.Cluster)
	}
	name, blocked := s.runName(app, lost)
	if blocked == "" {
		blocked = s.declined(app, lost)
	}
	if blocked != "" {
		return nil, blocked
	}
	if held := s.heldBy(det, app); held != "" {
		return nil, fmt.Sprintf("%s is lost: %s", from, held)
	}
	fc, _ := s.Fleet.Cluster(from)
	tc, _ := s.Fleet.Cluster(target.Cluster)
	return &v1alpha1.RecoveryRun{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.RecoveryRunSpec{
			Application: v1alpha1.ApplicationReference{Namespace: app.Namespace, Name: app.Name},
			Action:      v1alpha1.ActionFailover,
			From:        v1alpha1.Place{Cluster: from, Center: fc.Center},
			To:          v1alpha1.Place{Cluster: target.Cluster, Center: tc.Center},
		},
	}, ""
}

// unconfirmed says why a primary is not called lost although its lease is over, or
// is empty: a silence that nobody acts upon must not look like one that nobody saw.
func (s *Snapshot) unconfirmed(det Detection, app *v1alpha1.Application) string {
	for _, d := range s.datasetsOf(app) {
		primary := d.Status.Primary
		if d.Status.Phase != v1alpha1.DatasetSteady || det.Classes[primary] != Silent || !s.Fleet.Sightings[primary].LeaseOver {
			continue
		}
		return fmt.Sprintf("%s, the primary of dataset %s, is silent: %s; until then it moves on order only. Look at: tripodctl hub status. To move it: tripodctl failover %s/%s",
			primary, d.Name, det.Reasons[primary], app.Namespace, app.Name)
	}
	return ""
}

// lostDatasets are the application's datasets whose primary is lost and that no
// run owns.
func (s *Snapshot) lostDatasets(det Detection, app *v1alpha1.Application) []*v1alpha1.Dataset {
	var lost []*v1alpha1.Dataset
	for _, d := range s.datasetsOf(app) {
		if d.Status.Phase == v1alpha1.DatasetSteady && det.Classes[d.Status.Primary] == Lost {
			lost = append(lost, d)
		}
	}
	return lost
}

// runName is NAMESPACE.APPLICATION.EPOCH, and .N for the Nth attempt after
// earlier ones of this epoch were aborted. A rejection stands for the epoch.
func (s *Snapshot) runName(app *v1alpha1.Application, datasets []*v1alpha1.Dataset) (string, string) {
	base := fmt.Sprintf("%s.%s.%d", app.Namespace, app.Name, nextEpoch(datasets))
	attempt := 1
	for _, r := range s.indexed().runsOf[key(app)] {
		if r.Name != base && !strings.HasPrefix(r.Name, base+".") {
			continue
		}
		if r.Status.Reason == ReasonRejected || r.Status.Reason == ReasonAborted && r.Spec.Requester == "" {
			return "", fmt.Sprintf("run %s was rejected: start another one by hand when it is wanted", r.Name)
		}
		attempt++
	}
	if attempt > 1 {
		return fmt.Sprintf("%s.%d", base, attempt), ""
	}
	return base, ""
}

func nextEpoch(datasets []*v1alpha1.Dataset) int64 {
	epoch := int64(0)
	for _, d := range datasets {
		epoch = max(epoch, d.Status.Epoch+1)
	}
	return epoch
}

// declined says in which run of a plan a person did not want this role change, or
// is empty.
func (s *Snapshot) declined(app *v1alpha1.Application, datasets []*v1alpha1.Dataset) string {
	if d, ok := s.indexed().declined[key(app)]; ok && d.epoch == nextEpoch(datasets) {
		return fmt.Sprintf("run %s was declined: start another one by hand when it is wanted", d.run)
	}
	return ""
}

func (s *Snapshot) sameRegion(a, b string) bool {
	ca, oka := s.Fleet.Cluster(a)
	cb, okb := s.Fleet.Cluster(b)
	return oka && okb && ca.Region == cb.Region
}
