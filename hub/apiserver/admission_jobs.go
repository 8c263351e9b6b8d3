package apiserver

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// validatePlan guards the Jobs of a plan's hooks. Agents make them in their clusters
// with their own rights, so who may write plans could otherwise run anything anywhere.
func (c *rightsCheck) validatePlan(ctx context.Context, a admission.Attributes, object *unstructured.Unstructured) error {
	plan, err := planOf(object)
	if err != nil {
		return err
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
	return c.allow(ctx, a, v1alpha1.VerbRunJobs, v1alpha1.GroupVersion.WithResource("recoveryplans"), a.GetName(), "have a plan run Jobs in clusters")
}
