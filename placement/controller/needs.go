package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

// maxNeeds bounds each list.
const maxNeeds = 64

// needs is what the templates ask of a cluster, for the preflight of recoveries.
func needs(shares []v1alpha1.PlacementDecision, objects []*unstructured.Unstructured) *v1alpha1.PlacementNeeds {
	var n v1alpha1.PlacementNeeds
	for _, o := range objects {
		if group := o.GroupVersionKind().Group; v1alpha1.IsCustomGroup(group) {
			n.CustomKinds = append(n.CustomKinds, o.GetKind()+"."+group)
		}
		find(o.Object["spec"], "storageClassName", &n.StorageClasses)
		if template, ok, _ := unstructured.NestedMap(o.Object, "spec", "template"); ok {
			find(template, "image", &n.Images)
		}
	}
	n.CustomKinds, n.StorageClasses, n.Images = few(n.CustomKinds), few(n.StorageClasses), few(n.Images)
	for _, share := range shares {
		var sum placement.Amount
		for _, o := range objects {
			t := placement.TemplateFrom(o)
			replicas := t.Replicas
			if own := placement.ReplicasFor(share, t.Ref); own != nil && replicas != nil {
				replicas = own
			}
			if replicas != nil {
				sum.MilliCPU += int64(*replicas) * t.Requests.MilliCPU
				sum.Bytes += int64(*replicas) * t.Requests.Bytes
			}
		}
		n.Shares = append(n.Shares, v1alpha1.ShareRequests{Cluster: share.Cluster, Requests: v1alpha1.Resources{
			CPU: *resource.NewMilliQuantity(sum.MilliCPU, resource.DecimalSI), Memory: *resource.NewQuantity(sum.Bytes, resource.BinarySI)}})
	}
	return &n
}

// find collects the texts of a field wherever it is.
func find(in any, field string, into *[]string) {
	switch x := in.(type) {
	case map[string]any:
		for name, v := range x {
			if text, ok := v.(string); ok && name == field && text != "" {
				*into = append(*into, text)
				continue
			}
			find(v, field, into)
		}
	case []any:
		for _, v := range x {
			find(v, field, into)
		}
	}
}

func few(names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxNeeds)]
}
