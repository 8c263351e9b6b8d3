package placement_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

// TestRightsInWholeClustersAreSelected only on purpose, at one place, by name.
func TestRightsInWholeClustersAreSelected(t *testing.T) {
	meant := map[string]string{v1alpha1.LabelPlace: "true"}
	for name, tc := range map[string]struct {
		namespace, kind, object string
		labels                  map[string]string
		selector                *metav1.LabelSelector
		want                    bool
	}{
		"a role that is meant for clusters":    {v1alpha1.NamespaceSystem, "ClusterRole", "sre", meant, nil, true},
		"a binding that is meant for clusters": {v1alpha1.NamespaceSystem, "ClusterRoleBinding", "sre", meant, nil, true},
		"a placement in another namespace":     {"pay", "ClusterRole", "sre", meant, nil, false},
		"a role of the hub":                    {v1alpha1.NamespaceSystem, "ClusterRole", "sre", nil, nil, false},
		"a role that is said not to be meant":  {v1alpha1.NamespaceSystem, "ClusterRole", "sre", map[string]string{v1alpha1.LabelPlace: "false"}, nil, false},
		"the role of the agent":                {v1alpha1.NamespaceSystem, "ClusterRole", "tripod-agent", meant, nil, false},
		"a role of Kubernetes":                 {v1alpha1.NamespaceSystem, "ClusterRole", "cluster-admin", meant, nil, false},
		"whatever has a label":                 {v1alpha1.NamespaceSystem, "ClusterRole", "sre", meant, &metav1.LabelSelector{MatchLabels: meant}, false},
		"another kind that is in no namespace": {v1alpha1.NamespaceSystem, "PriorityClass", "sre", meant, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{Object: map[string]any{}}
			o.SetAPIVersion("rbac.authorization.k8s.io/v1")
			o.SetKind(tc.kind)
			o.SetName(tc.object)
			o.SetLabels(tc.labels)
			selected := v1alpha1.ResourceSelector{APIVersion: o.GetAPIVersion(), Kind: tc.kind, Name: tc.object, LabelSelector: tc.selector}
			if tc.selector != nil {
				selected.Name = ""
			}
			p := &v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Namespace: tc.namespace, Name: "access"}, Spec: v1alpha1.PlacementSpec{Resources: []v1alpha1.ResourceSelector{selected}}}
			if got, err := placement.Matches(p, o); err != nil || got != tc.want {
				t.Errorf("got %v, %v, want %v", got, err, tc.want)
			}
		})
	}
}
