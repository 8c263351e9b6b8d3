// Package render makes the manifest of one object for one cluster out of a
// template, a decision and overrides. It is pure, so every hub member renders
// the same bytes from the same committed state and none are stored (decision
// record 0004).
package render

import (
	"encoding/json"
	"fmt"
	"strconv"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

// AnnotationPlacement names, on an object in a member, the placement it came by.
const AnnotationPlacement = "tripod.dev/placement"

// ManagedByTripod is the value of v1alpha1.LabelManagedBy on what an applier
// owns. An applier deletes nothing without it.
const ManagedByTripod = "tripod"

// Target is where an object goes and what it is stamped with.
type Target struct {
	Cluster   placement.Cluster
	Share     v1alpha1.PlacementDecision
	Overrides []v1alpha1.Override
	// Placement is NAMESPACE/NAME.
	Placement string
	// Revision and Incarnation order this rendering among others of the object.
	Revision    int64
	Incarnation uint64
}

// Render makes the manifest. It does not change the template. An error names the
// object and what to correct, and concerns this object alone.
func Render(template *unstructured.Unstructured, target Target) (*unstructured.Unstructured, error) {
	if err := placeable(template); err != nil {
		return nil, err
	}
	obj := template.DeepCopy()
	strip(obj)
	if n := replicas(template, target.Share); n != nil {
		if err := unstructured.SetNestedField(obj.Object, int64(*n), "spec", "replicas"); err != nil {
			return nil, fmt.Errorf("%s: set spec.replicas: %w", describe(template), err)
		}
	}
	obj, err := override(obj, target)
	if err != nil {
		return nil, err
	}
	stamp(obj, target)
	return obj, nil
}

func replicas(template *unstructured.Unstructured, share v1alpha1.PlacementDecision) *int32 {
	t := placement.TemplateFrom(template)
	if t.Replicas == nil {
		return nil
	}
	return placement.ReplicasFor(share, t.Ref)
}

// placeable refuses templates that mean something in one cluster only.
func placeable(template *unstructured.Unstructured) error {
	if template.GetKind() == "Secret" && template.GetAPIVersion() == "v1" {
		if kind, _, _ := unstructured.NestedString(template.Object, "type"); kind == "kubernetes.io/service-account-token" {
			return fmt.Errorf("%s: a service account token is good for one cluster only: take it out of the selection; every cluster makes its own", describe(template))
		}
	}
	return nil
}

func override(obj *unstructured.Unstructured, target Target) (*unstructured.Unstructured, error) {
	for i, o := range target.Overrides {
		selected, err := placement.Selects(o.Clusters, target.Cluster)
		if err != nil {
			return nil, fmt.Errorf("placement %s: overrides[%d].clusters: %w", target.Placement, i, err)
		}
		if !selected {
			continue
		}
		for j, patch := range o.Patches {
			if patch.Kind != obj.GetKind() || (patch.Name != "" && patch.Name != obj.GetName()) {
				continue
			}
			if obj.GroupVersionKind().Group == v1alpha1.GroupRights {
				return nil, fmt.Errorf("placement %s: overrides[%d].patches[%d] is for %s: the hub has judged who may give these rights as they are written, so no override changes them: take it out",
					target.Placement, i, j, describe(obj))
			}
			patched, err := apply(obj, patch.JSONPatch)
			if err != nil {
				return nil, fmt.Errorf("placement %s: overrides[%d].patches[%d] of %s for cluster %s: %w: correct its jsonPatch",
					target.Placement, i, j, describe(obj), target.Cluster.Name, err)
			}
			if !sameIdentity(obj, patched) {
				return nil, fmt.Errorf("placement %s: overrides[%d].patches[%d] changes what %s is: an override must leave apiVersion, kind, name and namespace",
					target.Placement, i, j, describe(obj))
			}
			obj = patched
		}
	}
	return obj, nil
}

func apply(obj *unstructured.Unstructured, operations []v1alpha1.JSONPatchOperation) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	patch, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		return nil, fmt.Errorf("read the patch: %w", err)
	}
	document, err := obj.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode the template: %w", err)
	}
	changed, err := patch.Apply(document)
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(changed); err != nil {
		return nil, fmt.Errorf("read the patched object: %w", err)
	}
	return out, nil
}

func sameIdentity(a, b *unstructured.Unstructured) bool {
	return placement.ReferenceOf(a) == placement.ReferenceOf(b)
}

func stamp(obj *unstructured.Unstructured, target Target) {
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1alpha1.LabelManagedBy] = ManagedByTripod
	obj.SetLabels(labels)
	annotations := obj.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationPlacement] = target.Placement
	annotations[v1alpha1.AnnotationRevision] = strconv.FormatInt(target.Revision, 10)
	annotations[v1alpha1.AnnotationIncarnation] = strconv.FormatUint(target.Incarnation, 10)
	obj.SetAnnotations(annotations)
}

func describe(obj *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", obj.GetKind(), obj.GetNamespace(), obj.GetName())
}
