package reporter

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/syncer"
	"tripod.dev/tripod/syncer/view"
)

// watches are the running reflectors, one per resource. Only Run's goroutine
// uses it.
type watches struct {
	reporter *Reporter
	running  map[schema.GroupVersionResource]*running
	group    sync.WaitGroup
}

type running struct {
	resource syncer.Resource
	cancel   context.CancelFunc
	done     chan struct{}
}

func newWatches(r *Reporter) *watches {
	return &watches{reporter: r, running: map[schema.GroupVersionResource]*running{}}
}

func (w *watches) watched() []syncer.Resource {
	found := make([]syncer.Resource, 0, len(w.running))
	for _, one := range w.running {
		found = append(found, one.resource)
	}
	return found
}

// set starts and ends reflectors so that exactly served is watched.
func (w *watches) set(ctx context.Context, served map[schema.GroupVersionResource]syncer.Resource) {
	for gvr, one := range w.running {
		if _, ok := served[gvr]; ok {
			continue
		}
		one.cancel()
		<-one.done
		delete(w.running, gvr)
		w.reporter.ledger.retire(one.resource)
	}
	for gvr, resource := range served {
		if _, ok := w.running[gvr]; ok {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		one := &running{resource: resource, cancel: cancel, done: make(chan struct{})}
		w.running[gvr] = one
		reflector := w.reporter.reflector(resource)
		w.group.Go(func() {
			defer close(one.done)
			reflector.RunWithContext(ctx)
		})
	}
}

func (w *watches) stop() {
	for _, one := range w.running {
		one.cancel()
	}
	w.group.Wait()
}

func (r *Reporter) reflector(resource syncer.Resource) *cache.Reflector {
	client := r.config.dynamic.Resource(resource.GroupVersionResource)
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, options)
			r.ledger.heard(resource, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := client.Watch(ctx, options)
			r.ledger.heard(resource, err)
			return events, err
		},
	}
	return cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(source, r.config.dynamic), nil, &intake{reporter: r, resource: resource},
		cache.ReflectorOptions{
			Name:            "reporter",
			TypeDescription: resource.GroupVersionResource.String(),
			Backoff:         &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 5 * time.Second},
		})
}

// intake is the reflector's store: it cuts what it is given and hands it to the
// ledger. The reflector calls it from one goroutine and leaves the objects to it.
type intake struct {
	reporter *Reporter
	resource syncer.Resource
}

var announcing = []schema.GroupResource{
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
	{Group: "apiregistration.k8s.io", Resource: "apiservices"},
}

// Add implements cache.ReflectorStore.
func (s *intake) Add(obj any) error {
	object, keep, err := s.take(obj)
	if err != nil {
		return err
	}
	s.reporter.ledger.update(s.resource, func(j *syncer.Journal) bool {
		if !keep {
			return j.Delete(object.Key)
		}
		return j.Upsert(object)
	})
	s.announce()
	return nil
}

// Update implements cache.ReflectorStore.
func (s *intake) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s *intake) Delete(obj any) error {
	object, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("delete from the ledger: got %T, expected an unstructured object", obj)
	}
	key := keyOf(object)
	s.reporter.facts.forget(s.resource, key)
	s.reporter.ledger.update(s.resource, func(j *syncer.Journal) bool { return j.Delete(key) })
	s.announce()
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *intake) Replace(list []any, _ string) error {
	objects := make([]syncer.Object, 0, len(list))
	for _, obj := range list {
		object, keep, err := s.take(obj)
		if err != nil {
			return err
		}
		if keep {
			objects = append(objects, object)
		}
	}
	s.reporter.facts.listed(s.resource, objects)
	s.reporter.ledger.replace(s.resource, objects)
	s.announce()
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *intake) Resync() error { return nil }

func (s *intake) take(obj any) (syncer.Object, bool, error) {
	object, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return syncer.Object{}, false, fmt.Errorf("take into the ledger: got %T, expected an unstructured object", obj)
	}
	s.reporter.facts.note(s.resource, keyOf(object), object)
	taken := syncer.Object{Key: keyOf(object), Version: object.GetResourceVersion()}
	// An API server's own lists leave the kind out of the items.
	if object.GetKind() == "" {
		object.SetGroupVersionKind(s.resource.GroupVersionKind())
	}
	if !view.Cut(object.Object) {
		return taken, false, nil
	}
	var err error
	if taken.JSON, err = json.Marshal(object.Object); err != nil {
		return taken, false, fmt.Errorf("encode %s %s/%s: %w", s.resource.Resource, taken.Key.Namespace, taken.Key.Name, err)
	}
	return taken, true, nil
}

func keyOf(object *unstructured.Unstructured) syncer.Key {
	return syncer.Key{Namespace: object.GetNamespace(), Name: object.GetName()}
}

func (s *intake) announce() {
	if !slices.Contains(announcing, s.resource.GroupVersionResource.GroupResource()) {
		return
	}
	select {
	case s.reporter.rediscover <- struct{}{}:
	default:
	}
}
