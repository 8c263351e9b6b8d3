package view

import "tripod.dev/tripod/syncer"

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Cut is what every object goes through before it leaves its cluster: no
// bookkeeping of the API server, no secret values.
var Cut = syncer.Chain(CutMetadata, HideSecret)

// CutMetadata removes managedFields and the last applied configuration, which
// often are most of an object, and the latter of which repeats a Secret's data.
func CutMetadata(object map[string]any) bool {
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		return false
	}
	delete(metadata, "managedFields")
	if annotations, ok := metadata["annotations"].(map[string]any); ok {
		delete(annotations, lastApplied)
		if len(annotations) == 0 {
			delete(metadata, "annotations")
		}
	}
	return true
}

// HideSecret empties the values of a Secret and keeps its keys: secret values
// never leave their cluster through the view.
func HideSecret(object map[string]any) bool {
	if object["kind"] != "Secret" || object["apiVersion"] != "v1" {
		return true
	}
	for _, field := range []string{"data", "stringData"} {
		values, ok := object[field].(map[string]any)
		if !ok {
			delete(object, field)
			continue
		}
		for key := range values {
			values[key] = ""
		}
	}
	return true
}
