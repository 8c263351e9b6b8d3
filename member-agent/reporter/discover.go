package reporter

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"

	"tripod.dev/tripod/syncer"
)

// discoverer is the part of client-go's discovery client that is used.
type discoverer interface {
	ServerVersion() (*version.Info, error)
	ServerPreferredResources() ([]*metav1.APIResourceList, error)
}

// discover starts and ends watches so that exactly the synced resources that
// the API server serves are watched. Groups whose discovery failed keep the
// watches they have. It reports whether the API server answered.
func (r *Reporter) discover(ctx context.Context, watches *watches) bool {
	info, err := r.config.discovery.ServerVersion()
	if err != nil {
		r.config.Logger.Warn("cluster's API server does not tell its version", "error", err)
		return false
	}
	lists, err := r.config.discovery.ServerPreferredResources()
	failed, partial := discovery.GroupDiscoveryFailedErrorGroups(err)
	if err != nil && !partial {
		r.config.Logger.Warn("cluster's API server does not tell its resources", "error", err)
		return false
	}
	if partial {
		r.config.Logger.Warn("some API groups of the cluster cannot be discovered", "error", err)
	}
	served := map[schema.GroupVersionResource]syncer.Resource{}
	for _, list := range lists {
		for _, resource := range resourcesOf(list) {
			if r.config.Selection.Selects(resource) {
				served[resource.GroupVersionResource] = resource
			}
		}
	}
	for _, resource := range watches.watched() {
		if _, unknown := failed[resource.GroupVersion()]; unknown {
			served[resource.GroupVersionResource] = resource
		}
	}
	watches.set(ctx, served)
	r.facts.served(info.GitVersion, served)
	if r.facts.publish() {
		r.ledger.wake()
	}
	return true
}

// resourcesOf lists what can be listed and watched, without subresources.
func resourcesOf(list *metav1.APIResourceList) []syncer.Resource {
	gv, err := schema.ParseGroupVersion(list.GroupVersion)
	if err != nil {
		return nil
	}
	var found []syncer.Resource
	for _, api := range list.APIResources {
		if !slices.Contains(api.Verbs, "list") || !slices.Contains(api.Verbs, "watch") || slices.Contains([]byte(api.Name), '/') {
			continue
		}
		found = append(found, syncer.Resource{
			GroupVersionResource: gv.WithResource(api.Name),
			Kind:                 api.Kind,
			Singular:             api.SingularName,
			Namespaced:           api.Namespaced,
			ShortNames:           api.ShortNames,
			Categories:           api.Categories,
		})
	}
	return found
}
