package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is tripod.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "tripod.dev", Version: "v1alpha1"}

// SchemeBuilder registers the kinds with a scheme.
var (
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	AddToScheme   = SchemeBuilder.AddToScheme
)

// Resource qualifies a resource name with the group, as API errors want it.
func Resource(resource string) schema.GroupResource {
	return GroupVersion.WithResource(resource).GroupResource()
}

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Cluster{}, &ClusterList{},
		&Placement{}, &PlacementList{},
		&Tombstone{}, &TombstoneList{},
		&Dataset{}, &DatasetList{},
		&Application{}, &ApplicationList{},
		&GlobalService{}, &GlobalServiceList{},
		&RecoveryPlan{}, &RecoveryPlanList{},
		&RecoveryRun{}, &RecoveryRunList{},
		&Approval{}, &ApprovalList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
