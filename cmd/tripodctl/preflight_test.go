package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestThePreflightOfAPlanNamesWhatWouldStopIt(t *testing.T) {
	plan := v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "city", Generation: 2}, Spec: v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanOrdered},
		Status: v1alpha1.RecoveryPlanStatus{ObservedGeneration: 2, Preflight: []v1alpha1.PreflightCheck{{Check: "Hook", Target: "notify", Result: v1alpha1.PreflightFailed, Message: "its Secret is not there"}},
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: "Hook", Message: "notify: its Secret is not there"}}}}
	ahead := *plan.DeepCopy()
	ahead.Name, ahead.Generation = "newer", 3
	well := *plan.DeepCopy()
	well.Name, well.Status.Preflight, well.Status.Conditions[0].Status, well.Status.Conditions[0].Reason = "well", nil, metav1.ConditionTrue, "PlanReady"
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(&plan, &ahead, &well).Build()
	for name, want := range map[string]string{"city": "ready     False Hook: notify: its Secret is not there", "newer": "not assessed yet", "well": "ready     True PlanReady"} {
		var out bytes.Buffer
		err := planPreflight(t.Context(), api, &out, name)
		if !strings.Contains(out.String(), want) || (err == nil) != (name == "well") || err != nil && !errors.Is(err, errNotReady) {
			t.Errorf("%s: %v, %s", name, err, out.String())
		}
	}
	if err := planPreflight(t.Context(), api, &bytes.Buffer{}, "gone"); err == nil || !strings.Contains(err.Error(), "tripodctl plans") {
		t.Errorf("a plan that is not there: %v", err)
	}
	var out bytes.Buffer
	if err := printPlans(&out, []v1alpha1.RecoveryPlan{plan, well}); !errors.Is(err, errNotReady) || !strings.Contains(out.String(), "notify: its Secret") {
		t.Errorf("%v, %s", err, out.String())
	}
}
