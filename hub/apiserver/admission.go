package apiserver

import (
	"io"

	"k8s.io/apiserver/pkg/admission"
)

// Names of Tripod's own admission plugins, in their order.
const (
	admissionStamp   = "TripodStamp"
	admissionDataset = "TripodDataset"
	admissionPlan    = "TripodPlan"
	admissionRun     = "TripodRun"
	admissionRights  = "TripodRights"
)

var ownAdmission = []string{admissionStamp, admissionDataset, admissionPlan, admissionRun, admissionRights}

func registerAdmission(plugins *admission.Plugins, drivers []string) {
	plugins.Register(admissionStamp, func(io.Reader) (admission.Interface, error) { return newStamp(), nil })
	plugins.Register(admissionDataset, func(io.Reader) (admission.Interface, error) { return newDatasetCheck(drivers), nil })
	plugins.Register(admissionPlan, func(io.Reader) (admission.Interface, error) { return newPlanCheck(), nil })
	plugins.Register(admissionRun, func(io.Reader) (admission.Interface, error) { return newRunCheck(), nil })
	plugins.Register(admissionRights, func(io.Reader) (admission.Interface, error) { return newRightsCheck(), nil })
}
