package apiserver

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
	printerstorage "k8s.io/kubernetes/pkg/printers/storage"
	"k8s.io/kubernetes/pkg/registry/core/service"
)

// serviceStorage keeps Services with upstream's strategy but without its
// allocators: the hub has no service network, a template may ask for an address
// of its member's network, and two templates for two members may ask for the
// same node port. What no one allocates, no one has to strip when rendering.
type serviceStorage struct{ *genericregistry.Store }

var (
	_ rest.ShortNamesProvider = serviceStorage{}
	_ rest.CategoriesProvider = serviceStorage{}
)

func newServiceStorage(options generic.RESTOptionsGetter) (serviceStorage, error) {
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return &api.Service{} },
		NewListFunc:               func() runtime.Object { return &api.ServiceList{} },
		PredicateFunc:             service.Matcher,
		DefaultQualifiedResource:  api.Resource("services"),
		SingularQualifiedResource: api.Resource("service"),
		ReturnDeletedObject:       true,

		CreateStrategy:      serviceStrategy{service.Strategy},
		UpdateStrategy:      serviceStrategy{service.Strategy},
		DeleteStrategy:      service.Strategy,
		ResetFieldsStrategy: service.Strategy,

		BeginCreate: func(_ context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
			pairClusterIPs(obj.(*api.Service), &api.Service{})
			return finished, nil
		},
		BeginUpdate: func(_ context.Context, obj, old runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
			pairClusterIPs(obj.(*api.Service), old.(*api.Service))
			return finished, nil
		},
		TableConvertor: printerstorage.TableConvertor{TableGenerator: printers.NewTableGenerator().With(printersinternal.AddHandlers)},
	}
	err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: options, AttrFunc: service.GetAttrs})
	return serviceStorage{store}, err
}

// serviceStrategy is upstream's, but does not insist on the one port that
// upstream's allocator would have filled in before it validates.
type serviceStrategy struct{ rest.RESTCreateUpdateStrategy }

func (s serviceStrategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	return s.RESTCreateUpdateStrategy.Validate(ctx, withHealthCheckPort(obj))
}

func (s serviceStrategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	return s.RESTCreateUpdateStrategy.ValidateUpdate(ctx, withHealthCheckPort(obj), withHealthCheckPort(old))
}

// withHealthCheckPort returns obj with a health check node port, if a service
// of its kind must have one.
func withHealthCheckPort(obj runtime.Object) runtime.Object {
	s := obj.(*api.Service)
	if s.Spec.Type != api.ServiceTypeLoadBalancer || s.Spec.ExternalTrafficPolicy != api.ServiceExternalTrafficPolicyLocal ||
		s.Spec.HealthCheckNodePort != 0 {
		return s
	}
	filled := s.DeepCopy()
	filled.Spec.HealthCheckNodePort = 32767
	return filled
}

func finished(context.Context, bool) {}

// ShortNames are kubectl's.
func (serviceStorage) ShortNames() []string { return []string{"svc"} }

// Categories are kubectl's.
func (serviceStorage) Categories() []string { return []string{"all"} }

// pairClusterIPs keeps clusterIP and clusterIPs, of which clients may set
// either, in step, as upstream's allocator does on its way.
func pairClusterIPs(s, old *api.Service) {
	singular, plural := s.Spec.ClusterIP, s.Spec.ClusterIPs
	singularChanged := singular != old.Spec.ClusterIP
	pluralChanged := !slices.Equal(plural, old.Spec.ClusterIPs)
	switch {
	case singular == "" && singularChanged && !pluralChanged:
		s.Spec.ClusterIPs = nil
	case singular != "" && singularChanged && !pluralChanged, singular != "" && len(plural) == 0:
		s.Spec.ClusterIPs = []string{singular}
	case singular == "" && len(plural) > 0 && pluralChanged:
		s.Spec.ClusterIP = plural[0]
	}
}
