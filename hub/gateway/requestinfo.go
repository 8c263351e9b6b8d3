package gateway

import (
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/streaming/pkg/httpstream"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Resolver makes of /clusters/NAME/… the attributes of the subresource
// clusters/proxy of NAME, with a verb per class of method, of /applications/… those
// of applications/proxy in its namespace, and of /fleet/… those of the inner
// request, so that RBAC judges a read of the view as the same read of the hub.
func Resolver(next request.RequestInfoResolver) request.RequestInfoResolver {
	return resolver{next}
}

type resolver struct{ next request.RequestInfoResolver }

// NewRequestInfo implements request.RequestInfoResolver.
func (s resolver) NewRequestInfo(r *http.Request) (*request.RequestInfo, error) {
	switch route := readingOf(r).route; route.to {
	case toCluster:
		return &request.RequestInfo{
			IsResourceRequest: true,
			Path:              r.URL.Path,
			Verb:              verbOf(r),
			APIPrefix:         "apis",
			APIGroup:          v1alpha1.GroupVersion.Group,
			APIVersion:        v1alpha1.GroupVersion.Version,
			Resource:          "clusters",
			Subresource:       "proxy",
			Name:              route.cluster,
			Parts:             []string{"clusters", route.cluster, "proxy"},
		}, nil
	case toApplication:
		return &request.RequestInfo{
			IsResourceRequest: true,
			Path:              r.URL.Path,
			Verb:              verbOf(r),
			APIPrefix:         "apis",
			APIGroup:          v1alpha1.GroupVersion.Group,
			APIVersion:        v1alpha1.GroupVersion.Version,
			Namespace:         route.namespace,
			Resource:          "applications",
			Subresource:       "proxy",
			Name:              route.application,
			Parts:             []string{"applications", route.application, "proxy"},
		}, nil
	case toFleet:
		return s.next.NewRequestInfo(withURL(r, route.inner))
	case toNowhere:
		return &request.RequestInfo{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}, nil
	default:
		return s.next.NewRequestInfo(r)
	}
}

// verbOf is the verb of clusters/proxy. An upgraded connection carries whatever
// the client sends, so it is judged as create, whatever its method.
func verbOf(r *http.Request) string {
	if httpstream.IsUpgradeRequest(r) {
		return "create"
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return strings.ToLower(r.Method)
}

// LongRunning looks through the prefix: a request to a cluster is long-running
// if the cluster's own API server would find it so, or if it is upgraded.
func LongRunning(next request.LongRunningRequestCheck, inner request.RequestInfoResolver) request.LongRunningRequestCheck {
	return func(r *http.Request, info *request.RequestInfo) bool {
		reading := readingOf(r)
		if reading.route.to != toCluster && reading.route.to != toApplication {
			return next(r, info)
		}
		return reading.longRunning(r, next, inner)
	}
}
