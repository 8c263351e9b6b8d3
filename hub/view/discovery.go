package view

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/version"

	"tripod.dev/tripod/syncer"
)

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

var verbs = metav1.Verbs{"get", "list", "watch"}

// serveDiscovery answers what is in the view, in the old and in the aggregated
// shape, as kubectl and client-go ask for it.
func (h *Handler) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, notAllowed(schema.GroupResource{}, "the fleet's view is read-only"))
		return
	}
	form, ok := negotiate(r.Header.Get("Accept"))
	if !ok {
		// Old clients ask for the OpenAPI document as protobuf only.
		form = formObject
	}
	resources := h.config.View.Resources()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	answer := func(value any) { writeJSON(w, http.StatusOK, "application/json", value) }
	switch {
	case len(parts) == 1 && parts[0] == "version":
		answer(h.config.View.oldestVersion())
	case len(parts) == 1 && (parts[0] == "api" || parts[0] == "apis") && form == formDiscovery:
		writeJSON(w, http.StatusOK, aggregatedType, aggregated(resources, parts[0] == "api"))
	case len(parts) == 1 && parts[0] == "api":
		answer(metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}})
	case len(parts) == 1 && parts[0] == "apis":
		answer(metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: groups(resources)})
	case len(parts) == 2 && parts[0] == "api":
		h.serveVersion(w, resources, schema.GroupVersion{Version: parts[1]})
	case len(parts) == 2 && parts[0] == "apis":
		serveGroup(w, resources, parts[1])
	case len(parts) == 3 && parts[0] == "apis":
		h.serveVersion(w, resources, schema.GroupVersion{Group: parts[1], Version: parts[2]})
	case r.URL.Path == "/openapi/v3":
		answer(map[string]any{"paths": map[string]any{}})
	default:
		refuse(w, unknownPath())
	}
}

// oldestVersion is the oldest of the clusters' versions: what a client may rely
// on everywhere.
func (v *View) oldestVersion() version.Info {
	v.mu.Lock()
	defer v.mu.Unlock()
	var oldest *utilversion.Version
	info := version.Info{}
	for _, c := range v.clusters {
		parsed, err := utilversion.ParseSemantic(c.version)
		if err != nil || oldest != nil && !parsed.LessThan(oldest) {
			continue
		}
		oldest = parsed
		info = version.Info{Major: fmt.Sprint(parsed.Major()), Minor: fmt.Sprint(parsed.Minor()), GitVersion: c.version}
	}
	return info
}

func unknownPath() error {
	err := apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{}, "", "", 0, true)
	err.ErrStatus.Message = "the fleet's view serves /fleet/api, /fleet/apis and /fleet/version"
	return err
}

func (h *Handler) serveVersion(w http.ResponseWriter, resources []syncer.Resource, gv schema.GroupVersion) {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, r := range resources {
		if r.GroupVersion() == gv {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: r.Resource, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind,
				Verbs: verbs, ShortNames: r.ShortNames, Categories: r.Categories,
			})
		}
	}
	if list.APIResources == nil {
		refuse(w, unknownPath())
		return
	}
	writeJSON(w, http.StatusOK, "application/json", list)
}

func serveGroup(w http.ResponseWriter, resources []syncer.Resource, name string) {
	for _, group := range groups(resources) {
		if group.Name == name {
			group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			writeJSON(w, http.StatusOK, "application/json", group)
			return
		}
	}
	refuse(w, unknownPath())
}

// groups lists the groups but the core one, in order of name; a group's first
// version is its preferred one.
func groups(resources []syncer.Resource) []metav1.APIGroup {
	found := []metav1.APIGroup{}
	for _, r := range resources {
		if r.Group == "" {
			continue
		}
		if len(found) == 0 || found[len(found)-1].Name != r.Group {
			found = append(found, metav1.APIGroup{Name: r.Group})
		}
		group := &found[len(found)-1]
		version := metav1.GroupVersionForDiscovery{GroupVersion: r.GroupVersion().String(), Version: r.Version}
		if !slices.Contains(group.Versions, version) {
			group.Versions = append(group.Versions, version)
			group.PreferredVersion = group.Versions[0]
		}
	}
	return found
}

// aggregated is the core group or all the others.
func aggregated(resources []syncer.Resource, core bool) apidiscoveryv2.APIGroupDiscoveryList {
	list := apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, r := range resources {
		if (r.Group == "") != core {
			continue
		}
		if len(list.Items) == 0 || list.Items[len(list.Items)-1].Name != r.Group {
			list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: r.Group}})
		}
		group := &list.Items[len(list.Items)-1]
		if len(group.Versions) == 0 || group.Versions[len(group.Versions)-1].Version != r.Version {
			group.Versions = append(group.Versions, apidiscoveryv2.APIVersionDiscovery{Version: r.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent})
		}
		version := &group.Versions[len(group.Versions)-1]
		version.Resources = append(version.Resources, discovered(r))
	}
	return list
}

func discovered(r syncer.Resource) apidiscoveryv2.APIResourceDiscovery {
	scope := apidiscoveryv2.ScopeCluster
	if r.Namespaced {
		scope = apidiscoveryv2.ScopeNamespace
	}
	return apidiscoveryv2.APIResourceDiscovery{
		Resource:         r.Resource,
		ResponseKind:     &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind},
		Scope:            scope,
		SingularResource: r.Singular,
		Verbs:            verbs,
		ShortNames:       r.ShortNames,
		Categories:       r.Categories,
	}
}
