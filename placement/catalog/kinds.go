package catalog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// KindState is what the catalog knows of a kind of template.
type KindState int

// States of a kind. Only with KindServed does an absent template mean that
// there is none.
const (
	// KindPending: being looked for, or being read for the first time.
	KindPending KindState = iota
	// KindServed: its templates are all in the catalog.
	KindServed
	// KindUnknown: the hub does not serve it.
	KindUnknown
	// KindClusterScoped: its objects are in no namespace and cannot be placed. Those
	// of v1alpha1.ClusterWideRights can, and are KindServed.
	KindClusterScoped
)

type kind struct {
	state    KindState
	resource schema.GroupVersionResource
	informer cache.SharedIndexInformer
	cancel   context.CancelFunc
}

// Templates of a kind in a namespace, "" for a kind that is in none. Unless the state is KindServed the list
// says nothing about what exists.
func (c *Catalog) Templates(gvk schema.GroupVersionKind, namespace string) ([]*unstructured.Unstructured, KindState) {
	c.mu.Lock()
	k := c.kinds[gvk]
	var state KindState
	var informer cache.SharedIndexInformer
	if k != nil {
		state, informer = k.state, k.informer
	}
	c.mu.Unlock()
	if state != KindServed {
		return nil, state
	}
	if !informer.HasSynced() {
		return nil, KindPending
	}
	objs, err := informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, KindPending
	}
	var out []*unstructured.Unstructured
	for _, obj := range objs {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			out = append(out, u)
		}
	}
	return out, KindServed
}

// Template by name, or nil; nil says nothing unless the state is KindServed.
func (c *Catalog) Template(ref v1alpha1.TemplateReference) (*unstructured.Unstructured, KindState) {
	all, state := c.Templates(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind), ref.Namespace)
	for _, obj := range all {
		if obj.GetName() == ref.Name {
			return obj, state
		}
	}
	return nil, state
}

// Exists asks the store, linearizably, whether a template is there. It is what
// a tombstone for a template that went is checked with.
func (c *Catalog) Exists(ctx context.Context, ref v1alpha1.TemplateReference) (*unstructured.Unstructured, error) {
	resource, state, err := c.discover(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if err != nil {
		return nil, err
	}
	if state != KindServed {
		return nil, fmt.Errorf("the hub does not serve %s %s now, so it cannot say whether %s exists", ref.APIVersion, ref.Kind, ref.Name)
	}
	obj, err := c.client.Resource(resource).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", ref.Kind, ref.Namespace, ref.Name, err)
	}
	return obj, nil
}

// look asks serveKinds to compare the kinds that placements name with those
// that are watched.
func (c *Catalog) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Catalog) serveKinds(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	retry := time.NewTicker(c.config.Retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-retry.C:
		}
		for gvk := range c.named() {
			c.mu.Lock()
			k := c.kinds[gvk]
			c.mu.Unlock()
			if k != nil && k.state == KindServed {
				continue
			}
			c.serveKind(ctx, &running, gvk)
		}
	}
}

// named are the kinds that a placement selects or has placed.
func (c *Catalog) named() map[schema.GroupVersionKind]bool {
	out := map[schema.GroupVersionKind]bool{}
	for _, p := range c.Placements() {
		for _, r := range p.Spec.Resources {
			out[schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)] = true
		}
		for _, r := range p.Status.Placed {
			out[schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)] = true
		}
	}
	return out
}

func (c *Catalog) serveKind(ctx context.Context, running *sync.WaitGroup, gvk schema.GroupVersionKind) {
	resource, state, err := c.discover(gvk)
	if err != nil {
		c.config.Log.Warn("could not ask the hub for a kind", "kind", gvk.String(), "error", err)
		return
	}
	k := &kind{state: state, resource: resource}
	if state == KindServed {
		k.informer = dynamicinformer.NewFilteredDynamicInformer(c.client, resource, "", 0,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, nil).Informer()
		kindCtx, cancel := context.WithCancel(ctx)
		k.cancel = cancel
		_ = k.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
			if apierrors.IsNotFound(err) {
				c.unserved(gvk, k)
				return
			}
			cache.DefaultWatchErrorHandler(ctx, r, err)
		})
		c.notify(k.informer, TopicTemplate, gvk.Kind)
		running.Go(func() { k.informer.RunWithContext(kindCtx) })
		running.Go(func() {
			if cache.WaitForCacheSync(kindCtx.Done(), k.informer.HasSynced) {
				c.emit(Event{Topic: TopicKind, Kind: gvk.Kind})
			}
		})
	}
	c.mu.Lock()
	had := c.kinds[gvk]
	c.kinds[gvk] = k
	c.mu.Unlock()
	if had == nil || had.state != state {
		c.emit(Event{Topic: TopicKind, Kind: gvk.Kind})
	}
}

// unserved forgets a kind whose API went away: its templates are unknown from
// then on, not absent.
func (c *Catalog) unserved(gvk schema.GroupVersionKind, k *kind) {
	c.mu.Lock()
	current := c.kinds[gvk] == k
	if current {
		c.kinds[gvk] = &kind{state: KindUnknown}
	}
	c.mu.Unlock()
	k.cancel()
	if current {
		c.emit(Event{Topic: TopicKind, Kind: gvk.Kind})
	}
}

func (c *Catalog) discover(gvk schema.GroupVersionKind) (schema.GroupVersionResource, KindState, error) {
	resources, err := c.disco.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return schema.GroupVersionResource{}, KindUnknown, nil
	}
	if err != nil {
		return schema.GroupVersionResource{}, KindPending, fmt.Errorf("discover %s: %w", gvk.GroupVersion(), err)
	}
	for _, r := range resources.APIResources {
		if r.Kind != gvk.Kind || strings.Contains(r.Name, "/") {
			continue
		}
		if !r.Namespaced && !v1alpha1.ClusterWideRights(gvk.Group, gvk.Kind) {
			return schema.GroupVersionResource{}, KindClusterScoped, nil
		}
		return gvk.GroupVersion().WithResource(r.Name), KindServed, nil
	}
	return schema.GroupVersionResource{}, KindUnknown, nil
}
