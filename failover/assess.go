package failover

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Assess writes what an application's status should be: where it is active,
// whether it is available and protected, and whether a recovery would succeed
// now. blocked is why a loss is not acted upon, or empty.
func Assess(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset, services []*v1alpha1.GlobalService, run *v1alpha1.RecoveryRun, blocked string) {
	st := &app.Status
	st.ObservedGeneration = app.Generation
	st.Active = active(datasets, services, st.Active)
	assessCondition(s, app, v1alpha1.ConditionAvailable, datasets, "every dataset has a primary that serves")
	assessCondition(s, app, v1alpha1.ConditionProtected, datasets, "every dataset is protected as declared")
	st.Preflight = preflightChecks(s, det, app, datasets, services)
	ready, reason, message := readiness(st.Preflight, run, blocked, len(datasets))
	setCondition(s, app, v1alpha1.ConditionReady, ready, reason, message)
	if last := s.lastRun(app); last != nil {
		lr := v1alpha1.LastRun{Name: last.Name, Phase: string(last.Status.Phase)}
		if m := last.Status.Measured; m != nil {
			lr.RTOSeconds, lr.RPO = m.RTOSeconds, m.RPO
		}
		st.LastRun = &lr
	}
	st.LastDrill = s.lastDrill(app)
}

func active(datasets []*v1alpha1.Dataset, services []*v1alpha1.GlobalService, old []string) []string {
	var out []string
	for _, d := range datasets {
		if d.Status.Phase != v1alpha1.DatasetSteady {
			return old
		}
		out = append(out, d.Status.Primary)
	}
	if len(datasets) == 0 {
		for _, g := range services {
			out = append(out, g.Status.Active...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// assessCondition is true when it is true on every dataset.
func assessCondition(s *Snapshot, app *v1alpha1.Application, kind string, datasets []*v1alpha1.Dataset, good string) {
	for _, d := range datasets {
		c := meta.FindStatusCondition(d.Status.Conditions, kind)
		if c == nil {
			setCondition(s, app, kind, false, "NotReported", "dataset "+d.Name+" has not been assessed yet")
			return
		}
		if c.Status != metav1.ConditionTrue {
			setCondition(s, app, kind, false, c.Reason, "dataset "+d.Name+": "+c.Message)
			return
		}
	}
	if missing := missingDatasets(s, app); missing != "" {
		setCondition(s, app, kind, false, "DatasetMissing", missing)
		return
	}
	setCondition(s, app, kind, true, "AsDeclared", good)
}

func missingDatasets(s *Snapshot, app *v1alpha1.Application) string {
	for _, name := range app.Spec.Datasets {
		if s.dataset(types.NamespacedName{Namespace: app.Namespace, Name: name}) == nil {
			return fmt.Sprintf("dataset %s/%s does not exist: create it or remove it from spec.datasets", app.Namespace, name)
		}
	}
	return ""
}

func setCondition(s *Snapshot, app *v1alpha1.Application, kind string, is bool, reason, message string) {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&app.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: app.Generation, LastTransitionTime: transition(app.Status.Conditions, kind, status, s)})
}

func transition(conditions []metav1.Condition, kind string, status metav1.ConditionStatus, s *Snapshot) metav1.Time {
	if old := meta.FindStatusCondition(conditions, kind); old != nil && old.Status == status {
		return old.LastTransitionTime
	}
	return metav1.NewTime(s.Now)
}

// preflightChecks asks of every other member what a recovery to it would need.
func preflightChecks(s *Snapshot, det Detection, app *v1alpha1.Application, datasets []*v1alpha1.Dataset, services []*v1alpha1.GlobalService) []v1alpha1.PreflightCheck {
	var checks []v1alpha1.PreflightCheck
	asked := map[string]bool{}
	for _, d := range datasets {
		if d.Status.Primary == "" {
			continue
		}
		checks = append(checks, fenceCoverage(s, d))
		for _, m := range d.Spec.Members {
			if m.Cluster == d.Status.Primary {
				continue
			}
			checks = append(checks, reachable(det, m.Cluster), syncMember(d, m), lag(s, d, m.Cluster))
			if !asked[m.Cluster] {
				asked[m.Cluster] = true
				checks = append(checks, s.heldCheck(app, d, m.Cluster))
				checks = append(checks, s.needs(app, services, d.Status.Primary, m.Cluster)...)
			}
		}
	}
	return checks
}

func fenceCoverage(s *Snapshot, d *v1alpha1.Dataset) v1alpha1.PreflightCheck {
	c := v1alpha1.PreflightCheck{Check: "FenceCoverage", Target: d.Status.Primary, Result: v1alpha1.PreflightPassed}
	if !s.guarded(d, d.Status.Primary) {
		c.Result = v1alpha1.PreflightFailed
		c.Message = fmt.Sprintf("not every process that can write to %s at %s is guarded: elapsed time could not prove that it stopped", d.Name, d.Status.Primary)
	}
	return c
}

func reachable(det Detection, cluster string) v1alpha1.PreflightCheck {
	c := v1alpha1.PreflightCheck{Check: "TargetReachable", Target: cluster, Result: v1alpha1.PreflightPassed}
	if class := det.Classes[cluster]; class != Healthy {
		c.Result, c.Message = v1alpha1.PreflightFailed, fmt.Sprintf("%s is %s", cluster, orUnknown(class))
	}
	return c
}

func orUnknown(c Class) string {
	if c == "" {
		return "not an accepted cluster"
	}
	return string(c)
}

func syncMember(d *v1alpha1.Dataset, m v1alpha1.DatasetMember) v1alpha1.PreflightCheck {
	c := v1alpha1.PreflightCheck{Check: "SyncSet", Target: m.Cluster, Result: v1alpha1.PreflightPassed}
	switch {
	case inSyncSet(d, m.Cluster):
	case m.Link == v1alpha1.LinkAsynchronous || d.Spec.Protection == v1alpha1.Asynchronous:
		c.Result, c.Message = v1alpha1.PreflightWarning, "an asynchronous copy: a recovery to it needs an approval that accepts the loss"
	default:
		c.Result, c.Message = v1alpha1.PreflightFailed, "not in the sync set yet: a recovery to it could lose acknowledged writes"
	}
	return c
}

func lag(s *Snapshot, d *v1alpha1.Dataset, cluster string) v1alpha1.PreflightCheck {
	c := v1alpha1.PreflightCheck{Check: "ReplicationLag", Target: cluster, Result: v1alpha1.PreflightPassed}
	ms := memberStatus(d, cluster)
	switch {
	case ms == nil || ms.State == v1alpha1.StateUnknown:
		c.Result, c.Message = v1alpha1.PreflightFailed, "not observed"
	case s.incomplete(d, cluster) != "":
		c.Result, c.Message = v1alpha1.PreflightFailed, s.incomplete(d, cluster)
	case ms.State != v1alpha1.StateStreaming:
		c.Result, c.Message = v1alpha1.PreflightFailed, fmt.Sprintf("is %s, not Streaming", ms.State)
	}
	return c
}

// readiness is true when at least one target would pass without a person.
func readiness(checks []v1alpha1.PreflightCheck, run *v1alpha1.RecoveryRun, blocked string, datasets int) (bool, string, string) {
	switch {
	case blocked != "":
		return false, "NotActing", blocked
	case run != nil:
		phase := string(run.Status.Phase)
		if phase == "" {
			phase = "Pending"
		}
		return false, "RunInProgress", fmt.Sprintf("run %s is %s %s", run.Name, phase, run.Status.Message)
	case datasets == 0:
		return true, "Stateless", "nothing has to be fenced or promoted"
	}
	passed, failed := map[string]bool{}, map[string]bool{}
	var why []string
	for _, c := range checks {
		if c.Result == v1alpha1.PreflightPassed {
			passed[c.Target] = true
			continue
		}
		failed[c.Target] = true
		why = append(why, fmt.Sprintf("%s %s: %s", c.Target, c.Check, c.Message))
		if c.Check == "FenceCoverage" {
			return false, "FenceCoverage", c.Message
		}
	}
	for _, c := range checks {
		if c.Check != "FenceCoverage" && passed[c.Target] && !failed[c.Target] {
			return true, "TargetReady", c.Target + " could take over now"
		}
	}
	if len(why) == 0 {
		why = []string{"no dataset has a primary yet"}
	}
	return false, "NoTargetReady", strings.Join(why, "; ")
}
