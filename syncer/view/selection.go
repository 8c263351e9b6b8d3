package view

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/syncer"
)

// Selection says which of the resources that a cluster serves are synced. The
// zero Selection syncs everything but what changes all the time and tells a
// reader of the fleet nothing.
type Selection struct {
	// Events syncs events too. They are the busiest resource of most clusters.
	Events bool
	// Exclude names more resources to leave out.
	Exclude []schema.GroupResource
}

var (
	noisy = []schema.GroupResource{
		{Group: "coordination.k8s.io", Resource: "leases"},
		{Group: "coordination.k8s.io", Resource: "leasecandidates"},
		{Resource: "endpoints"}, // EndpointSlices say the same
	}
	events = []schema.GroupResource{
		{Resource: "events"},
		{Group: "events.k8s.io", Resource: "events"},
	}
)

// Selects reports whether a resource that can be listed and watched is synced.
func (s Selection) Selects(resource syncer.Resource) bool {
	name := resource.GroupVersionResource.GroupResource()
	switch {
	case slices.Contains(noisy, name), slices.Contains(s.Exclude, name):
		return false
	case name == events[1]:
		return false // the same objects as events of the core group
	case name == events[0]:
		return s.Events
	}
	return true
}
