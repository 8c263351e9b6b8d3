package view

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/syncer"
)

func TestCut(t *testing.T) {
	tests := map[string]struct{ object, want map[string]any }{
		"managed fields and the last applied configuration go": {
			object: map[string]any{"kind": "ConfigMap", "metadata": map[string]any{"name": "a", "managedFields": []any{1},
				"annotations": map[string]any{lastApplied: "{}", "keep": "me"}}},
			want: map[string]any{"kind": "ConfigMap", "metadata": map[string]any{"name": "a",
				"annotations": map[string]any{"keep": "me"}}},
		},
		"annotations left empty go": {
			object: map[string]any{"metadata": map[string]any{"annotations": map[string]any{lastApplied: "{}"}}},
			want:   map[string]any{"metadata": map[string]any{}},
		},
		"a secret keeps its keys and loses its values, also in the last applied configuration": {
			object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
				"metadata":   map[string]any{"name": "s", "annotations": map[string]any{lastApplied: `{"data":{"password":"aHVudGVyMg=="}}`}},
				"data":       map[string]any{"password": "aHVudGVyMg=="},
				"stringData": map[string]any{"token": "hunter2"}},
			want: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
				"metadata": map[string]any{"name": "s"}, "data": map[string]any{"password": ""}, "stringData": map[string]any{"token": ""}},
		},
		"a secret whose data is no map loses it": {
			object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{}, "data": "hunter2"},
			want:   map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{}},
		},
		"another group's Secret is not touched": {
			object: map[string]any{"apiVersion": "example.test/v1", "kind": "Secret", "metadata": map[string]any{}, "data": map[string]any{"a": "b"}},
			want:   map[string]any{"apiVersion": "example.test/v1", "kind": "Secret", "metadata": map[string]any{}, "data": map[string]any{"a": "b"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if !Cut(test.object) {
				t.Fatal("left out")
			}
			if diff := cmp.Diff(test.want, test.object); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	if Cut(map[string]any{"kind": "Status"}) {
		t.Error("an object without metadata was kept")
	}
}

func TestSelection(t *testing.T) {
	resource := func(group, name string) syncer.Resource {
		return syncer.Resource{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: "v1", Resource: name}}
	}
	tests := map[string]struct {
		selection Selection
		resource  syncer.Resource
		want      bool
	}{
		"pods are synced":                      {resource: resource("", "pods"), want: true},
		"custom resources are synced":          {resource: resource("example.test", "widgets"), want: true},
		"another group's leases are synced":    {resource: resource("example.test", "leases"), want: true},
		"leases are not":                       {resource: resource("coordination.k8s.io", "leases")},
		"endpoints are not":                    {resource: resource("", "endpoints")},
		"events are not by default":            {resource: resource("", "events")},
		"events are when asked for":            {selection: Selection{Events: true}, resource: resource("", "events"), want: true},
		"events are synced once, not twice":    {selection: Selection{Events: true}, resource: resource("events.k8s.io", "events")},
		"what is excluded by name is left out": {selection: Selection{Exclude: []schema.GroupResource{{Group: "example.test", Resource: "widgets"}}}, resource: resource("example.test", "widgets")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.selection.Selects(test.resource); got != test.want {
				t.Fatalf("Selects = %v", got)
			}
		})
	}
}
