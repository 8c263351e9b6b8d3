package applier

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	discoverycache "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// kube is the member's real API server.
type kube struct {
	client dynamic.Interface
	disco  discovery.DiscoveryInterface
	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu sync.Mutex
	// reset is when discovery was last read anew.
	reset   time.Time
	watched map[schema.GroupVersionResource]bool
	pending []watching
	factory dynamicinformer.DynamicSharedInformerFactory
	// stop ends the watches; nil until run is called.
	stop <-chan struct{}
}

type watching struct {
	gvr     schema.GroupVersionResource
	kind    schema.GroupKind
	changed func(identity)
}

func newKube(config *rest.Config) (*kube, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a discovery client of the cluster: %w", err)
	}
	return &kube{
		client: client, disco: disco, mapper: restmapper.NewDeferredDiscoveryRESTMapper(discoverycache.NewMemCacheClient(disco)),
		watched: map[schema.GroupVersionResource]bool{},
		factory: dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, metav1.NamespaceAll,
			func(o *metav1.ListOptions) { o.LabelSelector = v1alpha1.LabelManagedBy + "=" + managedBy }),
	}, nil
}

// resource finds how the cluster serves a kind. Discovery is read anew for an
// unknown kind, at most once a second, so that a CRD which has just come is seen.
func (k *kube) resource(apiVersion, kind string) (*meta.RESTMapping, error) {
	gvk := schema.FromAPIVersionAndKind(apiVersion, kind)
	mapping, err := k.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) && k.mayReset() {
		k.mapper.Reset()
		mapping, err = k.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if meta.IsNoMatchError(err) {
			return nil, k.confirmMissing(gvk)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find %s in the cluster: %w", gvk, err)
	}
	return mapping, nil
}

// confirmMissing asks for the one group version again: the mapper takes a group
// whose discovery failed for one that does not exist, and a tombstone is
// acknowledged for a kind that does not exist.
func (k *kube) confirmMissing(gvk schema.GroupVersionKind) error {
	resources, err := k.disco.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", gvk, errNoKind)
	}
	if err != nil {
		return fmt.Errorf("find %s in the cluster: %w", gvk, err)
	}
	for _, r := range resources.APIResources {
		if r.Kind == gvk.Kind {
			return fmt.Errorf("%s has just appeared in the cluster", gvk)
		}
	}
	return fmt.Errorf("%s: %w", gvk, errNoKind)
}

func (k *kube) mayReset() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.reset) < time.Second {
		return false
	}
	k.reset = time.Now()
	return true
}

func (k *kube) objects(apiVersion, kind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := k.resource(apiVersion, kind)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return k.client.Resource(mapping.Resource), nil
	}
	return k.client.Resource(mapping.Resource).Namespace(namespace), nil
}

func (k *kube) get(ctx context.Context, key *agentv1.ObjectKey) (*unstructured.Unstructured, error) {
	objects, err := k.objects(key.GetApiVersion(), key.GetKind(), key.GetNamespace())
	if err != nil {
		return nil, err
	}
	return objects.Get(ctx, key.GetName(), metav1.GetOptions{})
}

func (k *kube) apply(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	objects, err := k.objects(obj.GetAPIVersion(), obj.GetKind(), obj.GetNamespace())
	if err != nil {
		return nil, err
	}
	options := metav1.ApplyOptions{FieldManager: v1alpha1.FieldManager, Force: true}
	applied, err := objects.Apply(ctx, obj.GetName(), obj, options)
	if !namespaceMissing(err, obj.GetNamespace()) {
		return applied, err
	}
	if err := k.makeNamespace(ctx, obj.GetNamespace()); err != nil {
		return nil, err
	}
	return objects.Apply(ctx, obj.GetName(), obj, options)
}

func namespaceMissing(err error, namespace string) bool {
	if namespace == "" || !apierrors.IsNotFound(err) {
		return false
	}
	status, ok := err.(apierrors.APIStatus)
	return ok && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}

// makeNamespace makes a plain namespace. It carries no label of ours: nothing
// ever deletes it.
func (k *kube) makeNamespace(ctx context.Context, name string) error {
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(name)
	_, err := k.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).
		Create(ctx, namespace, metav1.CreateOptions{FieldManager: v1alpha1.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

func (k *kube) remove(ctx context.Context, obj *unstructured.Unstructured) error {
	objects, err := k.objects(obj.GetAPIVersion(), obj.GetKind(), obj.GetNamespace())
	if err != nil {
		return err
	}
	uid, version, background := obj.GetUID(), obj.GetResourceVersion(), metav1.DeletePropagationBackground
	return objects.Delete(ctx, obj.GetName(), metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		PropagationPolicy: &background,
	})
}

func (k *kube) watch(key *agentv1.ObjectKey, changed func(identity)) {
	mapping, err := k.resource(key.GetApiVersion(), key.GetKind())
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.watched[mapping.Resource] {
		return
	}
	k.watched[mapping.Resource] = true
	w := watching{mapping.Resource, mapping.GroupVersionKind.GroupKind(), changed}
	if k.stop == nil {
		k.pending = append(k.pending, w)
		return
	}
	k.startLocked(w)
}

func (k *kube) startLocked(w watching) {
	notify := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if o, err := meta.Accessor(obj); err == nil {
			w.changed(identity{w.kind.Group, w.kind.Kind, o.GetNamespace(), o.GetName()})
		}
	}
	informer := k.factory.ForResource(w.gvr).Informer()
	// Nothing reads the cache: a watch only says which object to look at.
	_ = informer.SetTransform(func(obj any) (any, error) {
		if o, ok := obj.(*unstructured.Unstructured); ok {
			small := &unstructured.Unstructured{}
			small.SetAPIVersion(o.GetAPIVersion())
			small.SetKind(o.GetKind())
			small.SetNamespace(o.GetNamespace())
			small.SetName(o.GetName())
			small.SetResourceVersion(o.GetResourceVersion())
			return small, nil
		}
		return obj, nil
	})
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    notify,
		UpdateFunc: func(_, obj any) { notify(obj) },
		DeleteFunc: notify,
	})
	k.factory.Start(k.stop)
}

func (k *kube) run(ctx context.Context) {
	k.mu.Lock()
	k.stop = ctx.Done()
	for _, w := range k.pending {
		k.startLocked(w)
	}
	k.pending = nil
	k.mu.Unlock()
	<-ctx.Done()
	k.factory.Shutdown()
}
