package view

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/syncer"
)

// fieldLabels are the field labels by which Kubernetes lets a kind be selected,
// beside metadata.name and metadata.namespace. Each is a path in the object.
// Source: the field label conversions of k8s.io/kubernetes/pkg/apis/*/v1.
var fieldLabels = map[schema.GroupResource][]string{
	{Resource: "pods"}: {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
		"spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"},
	{Resource: "nodes"}:                  {"spec.unschedulable"},
	{Resource: "namespaces"}:             {"status.phase"},
	{Resource: "secrets"}:                {"type"},
	{Resource: "services"}:               {"spec.clusterIP", "spec.type"},
	{Resource: "replicationcontrollers"}: {"status.replicas"},
	{Resource: "events"}: {"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
		"reportingComponent", "source", "type"},
	{Group: "apps", Resource: "replicasets"}:                               {"status.replicas"},
	{Group: "batch", Resource: "jobs"}:                                     {"status.successful"},
	{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}: {"spec.signerName"},
}

// selectableOf reads the values of a kind's field labels; nil if it has none.
func selectableOf(resource syncer.Resource, top map[string]json.RawMessage) fields.Set {
	paths := fieldLabels[resource.GroupVersionResource.GroupResource()]
	if len(paths) == 0 {
		return nil
	}
	set := make(fields.Set, len(paths))
	parsed := map[string]any{}
	for _, path := range paths {
		first, rest, _ := strings.Cut(path, ".")
		if _, ok := parsed[first]; !ok {
			var value any
			_ = json.Unmarshal(top[first], &value) // an absent or odd field selects as ""
			parsed[first] = value
		}
		set[path] = valueAt(parsed[first], rest)
	}
	return set
}

func valueAt(value any, path string) string {
	for path != "" {
		fields, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		var first string
		first, path, _ = strings.Cut(path, ".")
		value = fields[first]
	}
	switch value := value.(type) {
	case string:
		return value
	case bool:
		return strconv.FormatBool(value)
	case float64:
		return strconv.FormatInt(int64(value), 10)
	}
	return ""
}

// checkFields refuses a selector with a field label that the kind has not, as
// an API server does.
func checkFields(resource syncer.Resource, selector fields.Selector) error {
	known := map[string]bool{"metadata.name": true, "metadata.namespace": true, "metadata.cluster": true}
	for _, path := range fieldLabels[resource.GroupVersionResource.GroupResource()] {
		known[path] = true
	}
	for _, requirement := range selector.Requirements() {
		if !known[requirement.Field] {
			return fmt.Errorf("field label not supported for %s: %s", resource.Resource, requirement.Field)
		}
	}
	return nil
}
