package controller

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestReadinessIsTold(t *testing.T) {
	var events []string
	r := &readiness{metrics: newMetrics(), known: map[types.NamespacedName]told{}, plans: map[string]string{},
		announce: func(_ context.Context, of string, name types.NamespacedName, kind, reason, message string) {
			events = append(events, strings.Join([]string{of, name.String(), kind, reason, message}, " "))
		}}
	at := func(version string, ready metav1.ConditionStatus, result v1alpha1.PreflightResult) *v1alpha1.Application {
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger", ResourceVersion: version}}
		app.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: "Why", Message: "because"}}
		app.Status.Preflight = []v1alpha1.PreflightCheck{{Check: "Capacity", Target: "north-2", Result: v1alpha1.PreflightPassed}, {Check: "Capacity", Target: "north-2", Result: result}}
		return app
	}
	good, bad := at("1", metav1.ConditionTrue, v1alpha1.PreflightPassed), at("2", metav1.ConditionFalse, v1alpha1.PreflightFailed)
	ctx := context.Background()
	gauges := func() [2]float64 {
		return [2]float64{testutil.ToFloat64(r.metrics.ready.WithLabelValues("pay", "ledger")),
			testutil.ToFloat64(r.metrics.preflight.WithLabelValues("pay", "ledger", "Capacity", "north-2"))}
	}
	r.tell(ctx, []*v1alpha1.Application{good}, nil)
	if got := gauges(); got != [2]float64{1, 0} {
		t.Errorf("ready: %v", got)
	}
	r.tell(ctx, []*v1alpha1.Application{good}, []*v1alpha1.Application{bad})
	r.tell(ctx, []*v1alpha1.Application{bad}, []*v1alpha1.Application{at("2", metav1.ConditionFalse, v1alpha1.PreflightWarning)})
	if got := gauges(); got != [2]float64{0, 2} {
		t.Errorf("not ready: %v", got)
	}
	if diff := cmp.Diff([]string{"Application pay/ledger Warning RecoveryNotReady Why: because"}, events); diff != "" {
		t.Error(diff)
	}
	bad.ResourceVersion, bad.Status.Preflight = "3", bad.Status.Preflight[:0]
	r.tell(ctx, []*v1alpha1.Application{bad}, nil)
	if n := testutil.CollectAndCount(r.metrics.preflight); n != 0 {
		t.Errorf("%d gauges are left of checks that are gone", n)
	}
	r.tell(ctx, nil, nil)
	if n := testutil.CollectAndCount(r.metrics.ready) + testutil.CollectAndCount(r.metrics.preflight); n != 0 {
		t.Errorf("%d gauges are left of an application that is gone", n)
	}
}

func TestReadinessOfPlansIsTold(t *testing.T) {
	var events []string
	r := &readiness{metrics: newMetrics(), known: map[types.NamespacedName]told{}, plans: map[string]string{},
		announce: func(_ context.Context, of string, name types.NamespacedName, kind, reason, message string) {
			events = append(events, strings.Join([]string{of, name.Name, kind, reason, message}, " "))
		}}
	at := func(version string, ready metav1.ConditionStatus, result v1alpha1.PreflightResult) *v1alpha1.RecoveryPlan {
		plan := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "city", ResourceVersion: version}}
		plan.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: "Why", Message: "because"}}
		plan.Status.Preflight = []v1alpha1.PreflightCheck{{Check: "Hook", Target: "a", Result: result}, {Check: "Hook", Target: "b", Result: v1alpha1.PreflightPassed}}
		return plan
	}
	ctx := context.Background()
	gauges := func() [2]float64 {
		return [2]float64{testutil.ToFloat64(r.metrics.planReady.WithLabelValues("city")), testutil.ToFloat64(r.metrics.planPreflight.WithLabelValues("city", "Hook"))}
	}
	good, bad := at("1", metav1.ConditionTrue, v1alpha1.PreflightPassed), at("2", metav1.ConditionFalse, v1alpha1.PreflightFailed)
	r.tellPlans(ctx, []*v1alpha1.RecoveryPlan{good}, []*v1alpha1.RecoveryPlan{bad})
	if got := gauges(); got != [2]float64{1, 0} {
		t.Errorf("ready: %v", got)
	}
	r.tellPlans(ctx, []*v1alpha1.RecoveryPlan{bad}, nil)
	if got := gauges(); got != [2]float64{0, 2} {
		t.Errorf("not ready: %v", got)
	}
	if diff := cmp.Diff([]string{"RecoveryPlan city Warning RecoveryNotReady Why: because"}, events); diff != "" {
		t.Error(diff)
	}
	r.tellPlans(ctx, nil, nil)
	if n := testutil.CollectAndCount(r.metrics.planReady) + testutil.CollectAndCount(r.metrics.planPreflight); n != 0 {
		t.Errorf("%d gauges are left of a plan that is gone", n)
	}
}
