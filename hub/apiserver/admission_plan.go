package apiserver

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"tripod.dev/tripod/hub/api/condition"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// planCheck refuses a plan with a condition that could never be evaluated: who wrote
// it would learn that from preflight within a minute, or in the disaster. A condition
// that is there already is left alone, so that a plan which an older hub has taken can
// still be changed.
type planCheck struct {
	*admission.Handler
}

var _ admission.ValidationInterface = (*planCheck)(nil)

func newPlanCheck() *planCheck {
	return &planCheck{Handler: admission.NewHandler(admission.Create, admission.Update)}
}

// Validate implements admission.ValidationInterface.
func (c *planCheck) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	object, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" || a.GetResource().GroupResource() != v1alpha1.Resource("recoveryplans") {
		return nil
	}
	plan, err := planOf(object)
	if err != nil {
		return err
	}
	present := map[string]bool{}
	if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok {
		before, err := planOf(old)
		if err != nil {
			return err
		}
		for _, h := range before.Spec.Hooks {
			if h.Wait != nil {
				present[h.Wait.Condition] = true
			}
		}
	}
	var faults field.ErrorList
	for i, h := range plan.Spec.Hooks {
		if h.Wait == nil || present[h.Wait.Condition] {
			continue
		}
		if _, err := condition.Compile(h.Wait.Condition); err != nil {
			faults = append(faults, field.Invalid(field.NewPath("spec", "hooks").Index(i).Child("wait", "condition"), h.Wait.Condition, err.Error()))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), a.GetName(), faults)
}

func planOf(object *unstructured.Unstructured) (*v1alpha1.RecoveryPlan, error) {
	plan := &v1alpha1.RecoveryPlan{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, plan); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("read the plan: %v", err))
	}
	return plan, nil
}
