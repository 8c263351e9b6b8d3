// Package catalog keeps a hub member's warm copy of what placement works with:
// placements, clusters, tombstones, and the templates of every kind that a
// placement names, custom kinds included. Every member runs one, so that a new
// leader decides, and every member renders, without reading first.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Config of a Catalog.
type Config struct {
	// RESTConfig reaches the member's own API server.
	RESTConfig *rest.Config
	// Retry is how soon a kind that is not served is looked for again. 2 s by
	// default.
	Retry time.Duration
	Log   *slog.Logger
}

// Topic is what an Event is about.
type Topic int

// Topics.
const (
	TopicPlacement Topic = iota
	TopicCluster
	TopicTombstone
	TopicTemplate
	// TopicKind: a kind is served now, or no longer.
	TopicKind
)

// Event says that something changed. It carries names, not objects: who handles
// it reads the catalog.
type Event struct {
	Topic Topic
	// Kind is set for templates and kinds.
	Kind            string
	Namespace, Name string
}

// Catalog is safe for concurrent use. What it returns is shared: read only.
type Catalog struct {
	config     Config
	client     dynamic.Interface
	disco      discovery.DiscoveryInterface
	placements cache.SharedIndexInformer
	clusters   cache.SharedIndexInformer
	tombstones cache.SharedIndexInformer
	wake       chan struct{}

	mu       sync.Mutex
	kinds    map[schema.GroupVersionKind]*kind
	handlers map[int]func(Event)
	next     int
}

// New returns a Catalog that is filled by Run.
func New(config Config) (*Catalog, error) {
	if config.RESTConfig == nil {
		return nil, errors.New("catalog: RESTConfig is missing: give the rest.Config of the member's own API server")
	}
	if config.Retry == 0 {
		config.Retry = 2 * time.Second
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	client, err := dynamic.NewForConfig(config.RESTConfig)
	if err != nil {
		return nil, fmt.Errorf("make a client of the hub's API: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config.RESTConfig)
	if err != nil {
		return nil, fmt.Errorf("make a discovery client of the hub's API: %w", err)
	}
	c := &Catalog{
		config: config, client: client, disco: disco, wake: make(chan struct{}, 1),
		kinds: map[schema.GroupVersionKind]*kind{}, handlers: map[int]func(Event){},
	}
	c.placements = c.informer("placements", TopicPlacement, func() runtime.Object { return &v1alpha1.Placement{} })
	c.clusters = c.informer("clusters", TopicCluster, func() runtime.Object { return &v1alpha1.Cluster{} })
	c.tombstones = c.informer("tombstones", TopicTombstone, func() runtime.Object { return &v1alpha1.Tombstone{} })
	return c, nil
}

// informer watches one of our kinds and keeps it typed.
func (c *Catalog) informer(resource string, topic Topic, fresh func() runtime.Object) cache.SharedIndexInformer {
	informer := dynamicinformer.NewFilteredDynamicInformer(c.client,
		v1alpha1.GroupVersion.WithResource(resource), "", 0, cache.Indexers{}, nil).Informer()
	_ = informer.SetTransform(func(in any) (any, error) {
		u, ok := in.(*unstructured.Unstructured)
		if !ok {
			return in, nil
		}
		out := fresh()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
			return nil, fmt.Errorf("read %s %s/%s: %w", resource, u.GetNamespace(), u.GetName(), err)
		}
		return out, nil
	})
	c.notify(informer, topic, "")
	return informer
}

func (c *Catalog) notify(informer cache.SharedIndexInformer, topic Topic, kind string) {
	tell := func(obj any) {
		key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
		if err != nil {
			return
		}
		namespace, name, _ := cache.SplitMetaNamespaceKey(key)
		if topic == TopicPlacement {
			c.look()
		}
		c.emit(Event{topic, kind, namespace, name})
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    tell,
		UpdateFunc: func(_, obj any) { tell(obj) },
		DeleteFunc: tell,
	})
}

func (c *Catalog) emit(event Event) {
	c.mu.Lock()
	handlers := make([]func(Event), 0, len(c.handlers))
	for _, h := range c.handlers {
		handlers = append(handlers, h)
	}
	c.mu.Unlock()
	for _, h := range handlers {
		h(event)
	}
}

// Subscribe calls handle for each change until stop is called. handle must not
// block. What is there already is not told: read it.
func (c *Catalog) Subscribe(handle func(Event)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next++
	c.handlers[id] = handle
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.handlers, id)
	}
}

// Run keeps the catalog until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, informer := range []cache.SharedIndexInformer{c.placements, c.clusters, c.tombstones} {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	running.Go(func() { c.serveKinds(ctx) })
	running.Wait()
	return nil
}

// WaitSynced waits for the first complete read of our own kinds.
func (c *Catalog) WaitSynced(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), c.placements.HasSynced, c.clusters.HasSynced, c.tombstones.HasSynced) {
		return fmt.Errorf("wait for placements, clusters and tombstones: %w", ctx.Err())
	}
	return nil
}

// Placements of all namespaces, in no order.
func (c *Catalog) Placements() []*v1alpha1.Placement {
	return list[*v1alpha1.Placement](c.placements)
}

// Clusters of the fleet, in no order.
func (c *Catalog) Clusters() []*v1alpha1.Cluster { return list[*v1alpha1.Cluster](c.clusters) }

// Cluster by name, or nil.
func (c *Catalog) Cluster(name string) *v1alpha1.Cluster {
	obj, found, err := c.clusters.GetStore().GetByKey(name)
	if err != nil || !found {
		return nil
	}
	cluster, _ := obj.(*v1alpha1.Cluster)
	return cluster
}

// Tombstones not carried out yet, in no order.
func (c *Catalog) Tombstones() []*v1alpha1.Tombstone {
	return list[*v1alpha1.Tombstone](c.tombstones)
}

func list[T any](informer cache.SharedIndexInformer) []T {
	var out []T
	for _, obj := range informer.GetStore().List() {
		if typed, ok := obj.(T); ok {
			out = append(out, typed)
		}
	}
	return out
}
