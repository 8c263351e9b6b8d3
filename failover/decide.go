package failover

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
		return homecoming(s, det, app), ""
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
	if app.Spec.Failover.WithinRegion == v1alpha1.FailoverManual && s.sameRegion(from, target.Cluster) ||
		app.Spec.Failover.AcrossRegions == v1alpha1.FailoverManual && !s.sameRegion(from, target.Cluster) {
		return nil, fmt.Sprintf("%s is lost and the policy is Manual: start it with tripodctl failover %s/%s --to %s", from, app.Namespace, app.Name, target.Cluster)
	}
	name, blocked := s.runName(app, lost)
	if blocked != "" {
		return nil, blocked
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

func (s *Snapshot) datasetsOf(app *v1alpha1.Application) []*v1alpha1.Dataset {
	var all []*v1alpha1.Dataset
	for _, name := range app.Spec.Datasets {
		if d := s.dataset(types.NamespacedName{Namespace: app.Namespace, Name: name}); d != nil {
			all = append(all, d)
		}
	}
	return all
}

func (s *Snapshot) applicationOf(d *v1alpha1.Dataset) *v1alpha1.Application {
	for _, app := range s.Applications {
		if app.Namespace == d.Namespace && slices.Contains(app.Spec.Datasets, d.Name) {
			return app
		}
	}
	return nil
}

// activeRun is the oldest unfinished move of an application: one at a time. A
// drill is none.
func (s *Snapshot) activeRun(app *v1alpha1.Application) *v1alpha1.RecoveryRun {
	return s.oldest(app, func(r *v1alpha1.RecoveryRun) bool { return r.Spec.Action != v1alpha1.ActionDrill })
}

// oldest is the first of an application's unfinished runs of a kind.
func (s *Snapshot) oldest(app *v1alpha1.Application, kind func(*v1alpha1.RecoveryRun) bool) *v1alpha1.RecoveryRun {
	var oldest *v1alpha1.RecoveryRun
	for _, r := range s.Runs {
		ref := r.Spec.Application
		if ref.Namespace != app.Namespace || ref.Name != app.Name || Finished(r.Status.Phase) || !kind(r) {
			continue
		}
		if oldest == nil || r.CreationTimestamp.Before(&oldest.CreationTimestamp) ||
			r.CreationTimestamp.Equal(&oldest.CreationTimestamp) && r.Name < oldest.Name {
			oldest = r
		}
	}
	return oldest
}

// runName is NAMESPACE.APPLICATION.EPOCH, and .N for the Nth attempt after
// earlier ones of this epoch were aborted. A rejection stands for the epoch.
func (s *Snapshot) runName(app *v1alpha1.Application, datasets []*v1alpha1.Dataset) (string, string) {
	epoch := int64(0)
	for _, d := range datasets {
		epoch = max(epoch, d.Status.Epoch+1)
	}
	base := fmt.Sprintf("%s.%s.%d", app.Namespace, app.Name, epoch)
	attempt := 1
	for _, r := range s.Runs {
		if r.Name != base && !strings.HasPrefix(r.Name, base+".") {
			continue
		}
		if r.Status.Reason == ReasonRejected {
			return "", fmt.Sprintf("run %s was rejected: start another one by hand when it is wanted", r.Name)
		}
		attempt++
	}
	if attempt > 1 {
		return fmt.Sprintf("%s.%d", base, attempt), ""
	}
	return base, ""
}

func (s *Snapshot) sameRegion(a, b string) bool {
	ca, oka := s.Fleet.Cluster(a)
	cb, okb := s.Fleet.Cluster(b)
	return oka && okb && ca.Region == cb.Region
}
