package apiserver

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/discovery"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	appsrest "k8s.io/kubernetes/pkg/registry/apps/rest"
	autoscalingrest "k8s.io/kubernetes/pkg/registry/autoscaling/rest"
	batchrest "k8s.io/kubernetes/pkg/registry/batch/rest"
	claimstore "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	corerest "k8s.io/kubernetes/pkg/registry/core/rest"
	networkingrest "k8s.io/kubernetes/pkg/registry/networking/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
)

// servedResources are the built-in API versions and resources of the hub: the
// generic control plane's, and the stable ones that templates are made of. What
// is not named here is not only not served: upstream starts no informer for it.
func servedResources() *serverstorage.ResourceConfig {
	served := controlplane.DefaultGenericAPIResourceConfigSource()
	served.EnableVersions(
		appsv1.SchemeGroupVersion,
		autoscalingv1.SchemeGroupVersion,
		autoscalingv2.SchemeGroupVersion,
		batchv1.SchemeGroupVersion,
		networkingv1.SchemeGroupVersion,
		policyv1.SchemeGroupVersion,
	)
	served.DisableResources(
		networkingv1.SchemeGroupVersion.WithResource("ipaddresses"),
		networkingv1.SchemeGroupVersion.WithResource("servicecidrs"),
	)
	for _, runs := range []string{"pods", "nodes", "bindings", "replicationcontrollers", "persistentvolumes", "resourcequotas"} {
		served.DisableResources(corev1.SchemeGroupVersion.WithResource(runs))
	}
	return served
}

// storageProviders are the generic control plane's and those of the templates.
func storageProviders(c *controlplaneapiserver.CompletedConfig, d discovery.DiscoveryInterface) ([]controlplaneapiserver.RESTStorageProvider, error) {
	providers, err := c.GenericStorageProviders(d)
	if err != nil {
		return nil, err
	}
	for i, provider := range providers {
		if core, ok := provider.(*corerest.GenericConfig); ok {
			providers[i] = coreProvider{core}
		}
	}
	return append(providers,
		appsrest.StorageProvider{},
		autoscalingrest.RESTStorageProvider{},
		batchrest.RESTStorageProvider{},
		networkingrest.RESTStorageProvider{},
		policyrest.RESTStorageProvider{},
	), nil
}

// coreProvider adds to the generic core group the kinds that templates need.
type coreProvider struct{ *corerest.GenericConfig }

func (p coreProvider) NewRESTStorage(served serverstorage.APIResourceConfigSource, options generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	group, err := p.GenericConfig.NewRESTStorage(served, options)
	if err != nil {
		return genericapiserver.APIGroupInfo{}, err
	}
	claims, claimStatus, err := claimstore.NewREST(options)
	if err != nil {
		return genericapiserver.APIGroupInfo{}, err
	}
	services, err := newServiceStorage(options)
	if err != nil {
		return genericapiserver.APIGroupInfo{}, err
	}
	v1 := group.VersionedResourcesStorageMap[corev1.SchemeGroupVersion.Version]
	for name, storage := range map[string]rest.Storage{
		"persistentvolumeclaims":        claims,
		"persistentvolumeclaims/status": claimStatus,
		"services":                      services,
	} {
		v1[name] = storage
	}
	return group, nil
}

// groupPriorities order the groups in discovery, as kube-apiserver does.
func groupPriorities() map[schema.GroupVersion]controlplaneapiserver.APIServicePriority {
	priorities := controlplaneapiserver.DefaultGenericAPIServicePriorities()
	for gv, group := range map[schema.GroupVersion]int32{
		{Group: "apps", Version: "v1"}:              17800,
		{Group: "autoscaling", Version: "v1"}:       17500,
		{Group: "batch", Version: "v1"}:             17400,
		{Group: "networking.k8s.io", Version: "v1"}: 17200,
		{Group: "policy", Version: "v1"}:            17100,
	} {
		priorities[gv] = controlplaneapiserver.APIServicePriority{Group: group, Version: 15}
	}
	priorities[schema.GroupVersion{Group: "autoscaling", Version: "v2"}] = controlplaneapiserver.APIServicePriority{Group: 17500, Version: 30}
	return priorities
}
