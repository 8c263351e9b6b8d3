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
	r := &readiness{metrics: newMetrics(), known: map[types.NamespacedName]string{},
		announce: func(_ context.Context, app types.NamespacedName, kind, reason, message string) {
			events = append(events, strings.Join([]string{app.String(), kind, reason, message}, " "))
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
	if diff := cmp.Diff([]string{"pay/ledger Warning RecoveryNotReady Why: because"}, events); diff != "" {
		t.Error(diff)
	}
	r.tell(ctx, nil, nil)
	if n := testutil.CollectAndCount(r.metrics.ready) + testutil.CollectAndCount(r.metrics.preflight); n != 0 {
		t.Errorf("%d gauges are left of an application that is gone", n)
	}
}
