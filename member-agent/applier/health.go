package applier

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// health tells whether an object does what it is for, as far as its status says.
// A kind without such a status is healthy once applied.
func health(obj *unstructured.Unstructured) (bool, string) {
	switch obj.GetKind() {
	case "Deployment", "StatefulSet", "ReplicaSet":
		return replicasReady(obj)
	case "DaemonSet":
		want, ready := number(obj, 0, "status", "desiredNumberScheduled"), number(obj, 0, "status", "numberReady")
		if observed := number(obj, 0, "status", "observedGeneration"); observed < obj.GetGeneration() {
			return false, "not observed by its controller yet"
		}
		return ready >= want, fraction(ready, want)
	case "Job":
		if failed, message := condition(obj, "Failed", "True"); failed {
			return false, message
		}
		return true, ""
	case "PersistentVolumeClaim":
		phase, _, _ := unstructured.NestedString(obj.Object, "status", "phase")
		if phase != "Bound" {
			return false, "the claim is not bound: phase " + phase
		}
		return true, ""
	}
	for _, kind := range []string{"Ready", "Available"} {
		if bad, message := condition(obj, kind, "False"); bad {
			return false, message
		}
	}
	return true, ""
}

func replicasReady(obj *unstructured.Unstructured) (bool, string) {
	if observed := number(obj, 0, "status", "observedGeneration"); observed < obj.GetGeneration() {
		return false, "not observed by its controller yet"
	}
	want := number(obj, 1, "spec", "replicas")
	if updated := number(obj, want, "status", "updatedReplicas"); obj.GetKind() != "ReplicaSet" && updated < want {
		return false, fmt.Sprintf("%d of %d replicas are of the new template", updated, want)
	}
	ready := number(obj, 0, "status", "readyReplicas")
	return ready >= want, fraction(ready, want)
}

func fraction(ready, want int64) string {
	if ready >= want {
		return ""
	}
	return fmt.Sprintf("%d of %d ready", ready, want)
}

func number(obj *unstructured.Unstructured, missing int64, path ...string) int64 {
	n, found, err := unstructured.NestedInt64(obj.Object, path...)
	if err != nil || !found {
		return missing
	}
	return n
}

// condition tells whether the object has a condition of that type and status.
func condition(obj *unstructured.Unstructured, kind, status string) (bool, string) {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, item := range list {
		c, ok := item.(map[string]any)
		if !ok || c["type"] != kind || c["status"] != status {
			continue
		}
		message, _ := c["message"].(string)
		return true, message
	}
	return false, ""
}
