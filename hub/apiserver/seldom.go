package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// seldomWatched are the storage options of custom resources, without a watch cache for the
// kinds that the engine writes all the time and hardly anybody watches through the API. A
// cache decodes each write into maps, on every member, and keeps those of the last 75 s at
// least: of a thousand applications that fail over 400 MB, and a third of the collector's
// work. Who does watch one of them, or lists it, reads the store.
type seldomWatched struct {
	genericregistry.RESTOptionsGetter
}

// GetRESTOptions implements genericregistry.RESTOptionsGetter.
func (g seldomWatched) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (genericregistry.RESTOptions, error) {
	options, err := g.RESTOptionsGetter.GetRESTOptions(resource, example)
	if err == nil && (resource == v1alpha1.Resource("recoveryruns") || resource == v1alpha1.Resource("datasets")) {
		options.Decorator = genericregistry.UndecoratedStorage
	}
	return options, err
}
