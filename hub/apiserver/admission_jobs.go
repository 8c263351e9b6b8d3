package apiserver

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// validatePlan guards the Jobs of a plan's hooks. Agents make them in their clusters
// with their own rights, so who may write plans could otherwise run anything anywhere.
func (c *rightsCheck) validatePlan(ctx context.Context, a admission.Attributes, object *unstructured.Unstructured) error {
	if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok && reflect.DeepEqual(old.Object["spec"], object.Object["spec"]) {
		return nil
	}
	var plan v1alpha1.RecoveryPlan
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &plan); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the plan: %v", err))
	}
	jobs := false
	for _, h := range plan.Spec.Hooks {
		if h.Job == nil {
			continue
		}
		jobs = true
		if v1alpha1.ReservedNamespace(h.Job.Namespace) {
			return admission.NewForbidden(a, fmt.Errorf("hook %s has a Job in namespace %s, which belongs to Kubernetes or to Tripod in every cluster: choose another one", h.Name, h.Job.Namespace))
		}
	}
	if !jobs {
		return nil
	}
	who := a.GetUserInfo()
	decision, reason, err := c.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: v1alpha1.VerbRunJobs, APIGroup: v1alpha1.GroupVersion.Group, APIVersion: v1alpha1.GroupVersion.Version,
		Resource: "recoveryplans", Name: a.GetName(), ResourceRequest: true,
	})
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("ask whether %q may have plan %s run Jobs: %w", who.GetName(), a.GetName(), err))
	}
	if decision != authorizer.DecisionAllow {
		return admission.NewForbidden(a, fmt.Errorf("%q may not have a plan run Jobs in clusters: that takes the verb %s on recoveryplans %q %s",
			who.GetName(), v1alpha1.VerbRunJobs, a.GetName(), reason))
	}
	return nil
}
