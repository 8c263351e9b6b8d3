package placement

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// replicaKinds have spec.replicas with a server-side default of 1.
var replicaKinds = map[string]bool{
	"Deployment": true, "StatefulSet": true, "ReplicaSet": true, "ReplicationController": true,
}

// TemplateFrom reads what a decision needs from a template object. Any kind
// with an integer spec.replicas is scaled, so a user's CRD is too.
func TemplateFrom(obj *unstructured.Unstructured) Template {
	t := Template{Ref: ReferenceOf(obj)}
	if n, ok, err := unstructured.NestedInt64(obj.Object, "spec", "replicas"); err == nil && ok {
		v := int32(n)
		t.Replicas = &v
	} else if replicaKinds[obj.GetKind()] {
		v := int32(1)
		t.Replicas = &v
	}
	containers, _, _ := unstructured.NestedSlice(obj.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		container, ok := c.(map[string]any)
		if !ok {
			continue
		}
		t.Requests.MilliCPU += quantity(container, "cpu").MilliValue()
		t.Requests.Bytes += quantity(container, "memory").Value()
	}
	return t
}

// ReferenceOf names an object.
func ReferenceOf(obj *unstructured.Unstructured) v1alpha1.TemplateReference {
	return v1alpha1.TemplateReference{
		APIVersion: obj.GetAPIVersion(), Kind: obj.GetKind(),
		Namespace: obj.GetNamespace(), Name: obj.GetName(),
	}
}

func quantity(container map[string]any, name string) *resource.Quantity {
	s, _, _ := unstructured.NestedString(container, "resources", "requests", name)
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return &resource.Quantity{}
	}
	return &q
}

// ClusterFrom reads what a decision needs from a Cluster. Condition Leased is
// the leader's word: True is held, False is surely over, anything else unknown.
func ClusterFrom(c *v1alpha1.Cluster) Cluster {
	out := Cluster{
		Name: c.Name, Region: c.Spec.Region, Center: c.Spec.Center, Labels: c.Labels,
		Accepted: c.Spec.Admission == v1alpha1.AdmissionAccepted, Taints: c.Spec.Taints,
	}
	if leased := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionLeased); leased != nil {
		switch leased.Status {
		case metav1.ConditionTrue:
			out.Lease = LeaseHeld
		case metav1.ConditionFalse:
			out.Lease = LeaseOver
		}
	}
	if k := c.Status.Kubernetes; k != nil {
		out.Free = &Amount{
			MilliCPU: max(0, k.Allocatable.CPU.MilliValue()-k.Requested.CPU.MilliValue()),
			Bytes:    max(0, k.Allocatable.Memory.Value()-k.Requested.Memory.Value()),
		}
	}
	return out
}

// SameObject tells whether two references mean one object: the version of its
// API does not matter.
func SameObject(a, b v1alpha1.TemplateReference) bool {
	groupA, _ := schema.ParseGroupVersion(a.APIVersion)
	groupB, _ := schema.ParseGroupVersion(b.APIVersion)
	return groupA.Group == groupB.Group && a.Kind == b.Kind && a.Namespace == b.Namespace && a.Name == b.Name
}

// Contains tells whether refs name the object.
func Contains(refs []v1alpha1.TemplateReference, ref v1alpha1.TemplateReference) bool {
	return slices.ContainsFunc(refs, func(r v1alpha1.TemplateReference) bool { return SameObject(r, ref) })
}

// Matches tells whether a selector of the placement picks the template. Rights in
// whole clusters are picked by name, and only if their label says that they are
// meant for clusters.
func Matches(p *v1alpha1.Placement, obj *unstructured.Unstructured) (bool, error) {
	for _, s := range p.Spec.Resources {
		if s.APIVersion != obj.GetAPIVersion() || s.Kind != obj.GetKind() || !reaches(p, obj) {
			continue
		}
		if s.LabelSelector == nil || obj.GetNamespace() == "" {
			if s.Name == obj.GetName() {
				return true, nil
			}
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(s.LabelSelector)
		if err != nil {
			return false, fmt.Errorf("read the label selector for %s: %w", s.Kind, err)
		}
		if selector.Matches(labels.Set(obj.GetLabels())) {
			return true, nil
		}
	}
	return false, nil
}

// reaches tells whether the placement may select what is in the object's namespace.
func reaches(p *v1alpha1.Placement, obj *unstructured.Unstructured) bool {
	if obj.GetNamespace() != "" {
		return obj.GetNamespace() == p.Namespace
	}
	kind := obj.GroupVersionKind()
	return p.Namespace == v1alpha1.NamespaceSystem && v1alpha1.ClusterWideRights(kind.Group, kind.Kind) &&
		obj.GetLabels()[v1alpha1.LabelPlace] == "true" && !v1alpha1.ReservedRights(obj.GetName())
}
