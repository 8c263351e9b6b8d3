package view

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
)

// EncodeResource is the wire form of a resource.
func EncodeResource(r syncer.Resource) *agentv1.SyncedResource {
	return &agentv1.SyncedResource{
		Group: r.Group, Version: r.Version, Resource: r.Resource,
		Kind: r.Kind, Singular: r.Singular, Namespaced: r.Namespaced,
		ShortNames: r.ShortNames, Categories: r.Categories,
	}
}

// DecodeResource is the inverse of EncodeResource.
func DecodeResource(r *agentv1.SyncedResource) syncer.Resource {
	return syncer.Resource{
		GroupVersionResource: schema.GroupVersionResource{Group: r.GetGroup(), Version: r.GetVersion(), Resource: r.GetResource()},
		Kind:                 r.GetKind(),
		Singular:             r.GetSingular(),
		Namespaced:           r.GetNamespaced(),
		ShortNames:           r.GetShortNames(),
		Categories:           r.GetCategories(),
	}
}

// Encode is the wire form of a batch. age is how long ago the agent last heard
// from its API server about the resource; 0 while it watches.
func Encode(r syncer.Resource, batch syncer.Batch, age time.Duration) *agentv1.ViewDelta {
	delta := &agentv1.ViewDelta{
		Resource:      EncodeResource(r),
		SnapshotBegin: batch.Begin,
		SnapshotEnd:   batch.End,
		AgeMillis:     age.Milliseconds(),
	}
	for _, object := range batch.Upserts {
		delta.Upserts = append(delta.Upserts, &agentv1.ViewObject{Object: object.JSON})
	}
	apiVersion := r.GroupVersion().String()
	for _, key := range batch.Deletes {
		delta.Deletes = append(delta.Deletes, &agentv1.ObjectKey{
			ApiVersion: apiVersion, Kind: r.Kind, Namespace: key.Namespace, Name: key.Name,
		})
	}
	return delta
}
