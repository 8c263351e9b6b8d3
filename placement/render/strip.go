package render

import (
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// strip removes what a server fills in: it belongs to the hub's copy of the
// object, and would be wrong or refused in a member.
func strip(obj *unstructured.Unstructured) {
	owned := ownership(obj)
	metadata := map[string]any{"name": obj.GetName()}
	if ns := obj.GetNamespace(); ns != "" {
		metadata["namespace"] = ns
	}
	if labels := obj.GetLabels(); len(labels) > 0 {
		metadata["labels"] = toAny(labels)
	}
	if annotations := keptAnnotations(obj.GetAnnotations()); len(annotations) > 0 {
		metadata["annotations"] = toAny(annotations)
	}
	obj.Object["metadata"] = metadata
	delete(obj.Object, "status")
	switch obj.GetKind() {
	case "Service":
		stripService(obj, owned)
	case "PersistentVolumeClaim":
		unstructured.RemoveNestedField(obj.Object, "spec", "volumeName")
	case "ServiceAccount":
		delete(obj.Object, "secrets")
	case "Pod":
		unstructured.RemoveNestedField(obj.Object, "spec", "nodeName")
	case "Job":
		stripJob(obj)
	}
	dropServerNulls(obj.Object)
}

// stripService removes addresses and ports that the hub's API server
// allocated. What a person declared is told apart by managedFields: an
// allocation has no manager, because it happens after the fields of the request
// were recorded. A cluster IP is never rendered, but for None.
func stripService(obj *unstructured.Unstructured, owned fieldSets) {
	spec, ok := obj.Object["spec"].(map[string]any)
	if !ok {
		return
	}
	if ip, _ := spec["clusterIP"].(string); ip == "None" {
		delete(spec, "clusterIPs")
	} else {
		delete(spec, "clusterIP")
		delete(spec, "clusterIPs")
	}
	for _, field := range []string{"healthCheckNodePort", "ipFamilies", "ipFamilyPolicy"} {
		if !owned.has("f:spec", "f:"+field) {
			delete(spec, field)
		}
	}
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		port, ok := p.(map[string]any)
		if ok && !owned.hasPort(port) {
			delete(port, "nodePort")
		}
	}
}

// stripJob removes the selector and the labels that the server made from the
// job's uid, unless the person chose the selector.
func stripJob(obj *unstructured.Unstructured) {
	if manual, _, _ := unstructured.NestedBool(obj.Object, "spec", "manualSelector"); manual {
		return
	}
	unstructured.RemoveNestedField(obj.Object, "spec", "selector")
	for _, label := range []string{"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"} {
		unstructured.RemoveNestedField(obj.Object, "spec", "template", "metadata", "labels", label)
	}
}

// serverAnnotations are written by kubectl or by controllers about their own
// copy of an object.
var serverAnnotations = []string{
	"kubectl.kubernetes.io/last-applied-configuration",
	"deployment.kubernetes.io/revision",
	"pv.kubernetes.io/bind-completed",
	"pv.kubernetes.io/bound-by-controller",
	"volume.beta.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/selected-node",
}

func keptAnnotations(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if !slices.Contains(serverAnnotations, k) {
			out[k] = v
		}
	}
	return out
}

// dropServerNulls removes null creation timestamps and empty statuses of nested
// objects (pod templates, volume claim templates).
func dropServerNulls(value any) {
	switch v := value.(type) {
	case map[string]any:
		if metadata, ok := v["metadata"].(map[string]any); ok {
			delete(metadata, "creationTimestamp")
		}
		for _, child := range v {
			dropServerNulls(child)
		}
		if claims, ok := v["volumeClaimTemplates"].([]any); ok {
			for _, c := range claims {
				if claim, ok := c.(map[string]any); ok {
					delete(claim, "status")
				}
			}
		}
	case []any:
		for _, child := range v {
			dropServerNulls(child)
		}
	}
}

func toAny(in map[string]string) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

// fieldSets are the field sets of an object's managers, as decoded JSON.
type fieldSets []map[string]any

func ownership(obj *unstructured.Unstructured) fieldSets {
	var out fieldSets
	for _, entry := range obj.GetManagedFields() {
		if entry.FieldsV1 == nil || entry.Subresource != "" {
			continue
		}
		set := map[string]any{}
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &set) == nil {
			out = append(out, set)
		}
	}
	return out
}

func (f fieldSets) has(path ...string) bool {
	return slices.ContainsFunc(f, func(set map[string]any) bool {
		_, found, _ := unstructured.NestedFieldNoCopy(set, path...)
		return found
	})
}

// hasPort tells whether someone declared the node port of this service port.
// List items are keyed k:{"port":80,"protocol":"TCP"}.
func (f fieldSets) hasPort(port map[string]any) bool {
	number, protocol := port["port"], port["protocol"]
	if protocol == nil {
		protocol = "TCP"
	}
	for _, set := range f {
		ports, _, _ := unstructured.NestedMap(set, "f:spec", "f:ports")
		for key, fields := range ports {
			var id map[string]any
			if json.Unmarshal([]byte(strings.TrimPrefix(key, "k:")), &id) != nil {
				continue
			}
			declared, ok := fields.(map[string]any)
			if !ok || !sameNumber(id["port"], number) || id["protocol"] != protocol {
				continue
			}
			if _, owns := declared["f:nodePort"]; owns {
				return true
			}
		}
	}
	return false
}

func sameNumber(a, b any) bool {
	fa, okA := asFloat(a)
	fb, okB := asFloat(b)
	return okA && okB && fa == fb
}

func asFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
