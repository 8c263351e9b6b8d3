package apiserver

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// runCheck refuses the deletion of a run that has changed something and is not at its
// end. Its journal is what the next leader goes on from: without it the dataset stays
// where it is, fenced and promoted nowhere, and what a drill has made is removed by
// nobody.
type runCheck struct{ *admission.Handler }

var _ admission.ValidationInterface = (*runCheck)(nil)

func newRunCheck() *runCheck { return &runCheck{admission.NewHandler(admission.Delete)} }

// Validate implements admission.ValidationInterface.
func (*runCheck) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	run, ok := a.GetOldObject().(*unstructured.Unstructured)
	if !ok || a.GetSubresource() != "" || a.GetResource().GroupResource() != v1alpha1.Resource("recoveryruns") || isHub(a.GetUserInfo()) {
		return nil
	}
	phase, _, _ := unstructured.NestedString(run.Object, "status", "phase") // the hub alone writes it
	if phase == string(v1alpha1.RunPaused) {
		phase, _, _ = unstructured.NestedString(run.Object, "status", "resumePhase")
	}
	if !underWay(v1alpha1.RunPhase(phase)) {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("it is in %s, and what it has begun would be left as it is: abort it or let it end, `tripodctl run %s` says what it waits for", phase, run.GetName()))
}

// underWay is true for the phases in which a run has changed a dataset, or may have left
// something in a cluster.
func underWay(phase v1alpha1.RunPhase) bool {
	switch phase {
	case v1alpha1.RunClosing, v1alpha1.RunFencing, v1alpha1.RunPromoting, v1alpha1.RunRouting, v1alpha1.RunVerifying,
		v1alpha1.RunReturning, v1alpha1.RunDrilling, v1alpha1.RunCleaning:
		return true
	}
	return false
}
