package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// readiness tells metrics and events whether recoveries would succeed now. It
// belongs to the controller's loop.
type readiness struct {
	metrics  *metrics
	announce func(ctx context.Context, of string, name types.NamespacedName, kind, reason, message string)
	// known is what was last told, by application; plans are resource versions by plan.
	known map[types.NamespacedName]told
	plans map[string]string
}

// told is what metrics show of one application at a resource version: its checks and
// their targets.
type told struct {
	version string
	checks  map[[2]string]float64
}

// begin forgets what an earlier term told.
func (r *readiness) begin() {
	clear(r.known)
	clear(r.plans)
	r.metrics.planReady.Reset()
	r.metrics.planPreflight.Reset()
	r.metrics.ready.Reset()
	r.metrics.preflight.Reset()
}

// tell tells of every application that it has not told of in its present state,
// and of those that are about to be changed what they become.
func (r *readiness) tell(ctx context.Context, apps, changed []*v1alpha1.Application) {
	present := make(map[types.NamespacedName]*v1alpha1.Application, len(apps))
	for _, app := range apps {
		name := types.NamespacedName{Namespace: app.Namespace, Name: app.Name}
		present[name] = app
		if old := r.known[name]; old.version != app.ResourceVersion {
			r.known[name] = told{app.ResourceVersion, r.measure(app, old.checks)}
		}
	}
	for name, old := range r.known {
		if present[name] == nil {
			delete(r.known, name)
			r.metrics.ready.DeleteLabelValues(name.Namespace, name.Name)
			r.forget(name, old.checks, nil)
		}
	}
	for _, next := range changed {
		name := types.NamespacedName{Namespace: next.Namespace, Name: next.Name}
		r.changed(ctx, "Application", name, readyOf(present[name]), readyOf(next))
	}
}

// forget takes away the checks of an application that are no more. It names each: a
// search for all of one application would look through those of every other.
func (r *readiness) forget(name types.NamespacedName, old, now map[[2]string]float64) {
	for k := range old {
		if _, stays := now[k]; !stays {
			r.metrics.preflight.DeleteLabelValues(name.Namespace, name.Name, k[0], k[1])
		}
	}
}

// changed tells of a change of Ready.
func (r *readiness) changed(ctx context.Context, of string, name types.NamespacedName, was, is *metav1.Condition) {
	if is == nil || was != nil && was.Status == is.Status {
		return
	}
	kind, reason := corev1.EventTypeWarning, "RecoveryNotReady"
	if is.Status == metav1.ConditionTrue {
		kind, reason = corev1.EventTypeNormal, "RecoveryReady"
	}
	r.announce(ctx, of, name, kind, reason, is.Reason+": "+is.Message)
}

// tellPlans is tell for plans.
func (r *readiness) tellPlans(ctx context.Context, plans, changed []*v1alpha1.RecoveryPlan) {
	present := make(map[string]*v1alpha1.RecoveryPlan, len(plans))
	for _, plan := range plans {
		present[plan.Name] = plan
		if r.plans[plan.Name] != plan.ResourceVersion {
			r.plans[plan.Name] = plan.ResourceVersion
			r.measurePlan(plan)
		}
	}
	for name := range r.plans {
		if present[name] == nil {
			delete(r.plans, name)
			r.metrics.planReady.DeleteLabelValues(name)
			r.metrics.planPreflight.DeletePartialMatch(map[string]string{"plan": name})
		}
	}
	for _, next := range changed {
		var was *metav1.Condition
		if old := present[next.Name]; old != nil {
			was = meta.FindStatusCondition(old.Status.Conditions, v1alpha1.ConditionReady)
		}
		r.changed(ctx, "RecoveryPlan", types.NamespacedName{Name: next.Name}, was, meta.FindStatusCondition(next.Status.Conditions, v1alpha1.ConditionReady))
	}
}

// measurePlan sets the gauges of one plan: of its applications only the worst.
func (r *readiness) measurePlan(plan *v1alpha1.RecoveryPlan) {
	ready := r.metrics.planReady.WithLabelValues(plan.Name)
	ready.Set(0)
	if meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.ConditionReady) {
		ready.Set(1)
	}
	r.metrics.planPreflight.DeletePartialMatch(map[string]string{"plan": plan.Name})
	worst := map[string]float64{}
	for _, c := range plan.Status.Preflight {
		worst[c.Check] = max(worst[c.Check], resultValues[c.Result])
	}
	for check, v := range worst {
		r.metrics.planPreflight.WithLabelValues(plan.Name, check).Set(v)
	}
}

func readyOf(app *v1alpha1.Application) *metav1.Condition {
	if app == nil {
		return nil
	}
	return meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
}

var resultValues = map[v1alpha1.PreflightResult]float64{v1alpha1.PreflightPassed: 0, v1alpha1.PreflightWarning: 1, v1alpha1.PreflightFailed: 2}

// measure sets the gauges of one application, of which old were set before, and
// returns its checks. Of several datasets with one check and target the worst counts.
func (r *readiness) measure(app *v1alpha1.Application, old map[[2]string]float64) map[[2]string]float64 {
	ready := r.metrics.ready.WithLabelValues(app.Namespace, app.Name)
	ready.Set(0)
	if c := readyOf(app); c != nil && c.Status == metav1.ConditionTrue {
		ready.Set(1)
	}
	worst := map[[2]string]float64{}
	for _, c := range app.Status.Preflight {
		k := [2]string{c.Check, c.Target}
		worst[k] = max(worst[k], resultValues[c.Result])
	}
	r.forget(types.NamespacedName{Namespace: app.Namespace, Name: app.Name}, old, worst)
	for k, v := range worst {
		r.metrics.preflight.WithLabelValues(app.Namespace, app.Name, k[0], k[1]).Set(v)
	}
	return worst
}
