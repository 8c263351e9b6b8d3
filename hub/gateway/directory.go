package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Directory holds the Cluster objects of the member's own API server. It is the
// Clusters of Routes, and names the clusters that the view expects.
type Directory struct {
	client  dynamic.Interface
	removed func(cluster string)

	mu       sync.RWMutex
	clusters map[string]*v1alpha1.Cluster
	synced   bool
}

// NewDirectory makes a Directory that reads with config. removed, if not nil, is
// called when a cluster has left the fleet; it must not block.
func NewDirectory(config *rest.Config, removed func(cluster string)) (*Directory, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the directory's client: %w", err)
	}
	return newDirectory(client, removed), nil
}

func newDirectory(client dynamic.Interface, removed func(string)) *Directory {
	if removed == nil {
		removed = func(string) {}
	}
	return &Directory{client: client, removed: removed, clusters: map[string]*v1alpha1.Cluster{}}
}

// Run reads and follows the clusters until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	clusters := d.client.Resource(v1alpha1.GroupVersion.WithResource("clusters"))
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return clusters.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return clusters.Watch(ctx, options)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(source, d.client), &unstructured.Unstructured{},
		directoryStore{d}, cache.ReflectorOptions{Name: "directory", TypeDescription: "clusters"}).RunWithContext(ctx)
	return nil
}

// Cluster implements Clusters. The object is shared: do not change it.
func (d *Directory) Cluster(name string) (*v1alpha1.Cluster, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	cluster, ok := d.clusters[name]
	return cluster, ok
}

// Accepted names the accepted clusters in order.
func (d *Directory) Accepted() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var names []string
	for name, cluster := range d.clusters {
		if cluster.Spec.Admission == v1alpha1.AdmissionAccepted {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Ready says why the directory cannot answer yet.
func (d *Directory) Ready() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.synced {
		return errors.New("the clusters have not been listed yet")
	}
	return nil
}

// directoryStore is what the reflector writes to.
type directoryStore struct{ *Directory }

func decode(obj any) (*v1alpha1.Cluster, error) {
	object, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("decode a cluster: got %T, expected an unstructured object", obj)
	}
	cluster := &v1alpha1.Cluster{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, cluster); err != nil {
		return nil, fmt.Errorf("decode cluster %q: %w", object.GetName(), err)
	}
	return cluster, nil
}

// Add implements cache.ReflectorStore.
func (s directoryStore) Add(obj any) error {
	cluster, err := decode(obj)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clusters[cluster.Name] = cluster
	return nil
}

// Update implements cache.ReflectorStore.
func (s directoryStore) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s directoryStore) Delete(obj any) error {
	cluster, err := decode(obj)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.clusters, cluster.Name)
	s.mu.Unlock()
	s.removed(cluster.Name)
	return nil
}

// Replace implements cache.ReflectorStore.
func (s directoryStore) Replace(list []any, _ string) error {
	clusters := make(map[string]*v1alpha1.Cluster, len(list))
	for _, obj := range list {
		cluster, err := decode(obj)
		if err != nil {
			return err
		}
		clusters[cluster.Name] = cluster
	}
	s.mu.Lock()
	old := s.clusters
	s.clusters, s.synced = clusters, true
	s.mu.Unlock()
	for name := range old {
		if _, kept := clusters[name]; !kept {
			s.removed(name)
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (directoryStore) Resync() error { return nil }
