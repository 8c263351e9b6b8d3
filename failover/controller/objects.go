package controller

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// objects reads the committed state: the informers' caches, corrected by what
// this member has itself just written or read, because a cache lags. Nothing
// rests on its being complete: every write names the resource version that it
// was derived from, and every directive the revision that justified it.
type objects struct {
	cached client.Reader // informers
	direct client.Client // the API server

	mu    sync.Mutex
	newer map[objectKey]newer
	// stores are the informers' own, by the type of what is in them: a list from there
	// copies nothing.
	stores map[reflect.Type]toolscache.Store
}

type objectKey struct {
	kind reflect.Type
	name types.NamespacedName
}

type newer struct {
	object client.Object
	// created objects may be missing in the cache for a while; others that are
	// missing there were deleted.
	created time.Time
}

// createdGrace is how long a created object may be missing in the cache.
const createdGrace = 5 * time.Second

func newObjects(cached client.Reader, direct client.Client) *objects {
	return &objects{cached: cached, direct: direct, newer: map[objectKey]newer{}, stores: map[reflect.Type]toolscache.Store{}}
}

// informed notes where an informer keeps objects of a type.
func (o *objects) informed(obj any, store toolscache.Store) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stores[reflect.TypeOf(obj)] = store
}

// cachedList are the objects of a kind in the informers' caches.
func cachedList[T client.Object](ctx context.Context, o *objects, into client.ObjectList, items func() []T) ([]T, error) {
	var zero T
	o.mu.Lock()
	store := o.stores[reflect.TypeOf(zero)]
	o.mu.Unlock()
	if store == nil {
		err := o.cached.List(ctx, into, client.UnsafeDisableDeepCopy)
		return items(), err
	}
	all := store.List()
	found := make([]T, 0, len(all))
	for _, obj := range all {
		found = append(found, obj.(T))
	}
	return found, nil
}

// remember notes an object as the API server returned it.
func (o *objects) remember(obj client.Object, created bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := objectKey{reflect.TypeOf(obj), client.ObjectKeyFromObject(obj)}
	n := newer{object: obj, created: o.newer[k].created}
	if created {
		n.created = time.Now()
	}
	if old, ok := o.newer[k]; ok && resourceVersion(old.object) > resourceVersion(obj) {
		return
	}
	o.newer[k] = n
}

// refresh reads one object from the API server after a conflict.
func (o *objects) refresh(ctx context.Context, obj client.Object) error {
	fresh := obj.DeepCopyObject().(client.Object)
	if err := o.direct.Get(ctx, client.ObjectKeyFromObject(obj), fresh); err != nil {
		return client.IgnoreNotFound(err)
	}
	o.remember(fresh, false)
	return nil
}

// refreshAll reads what a run's safety rests on from the API server, at the
// start of a term.
func (o *objects) refreshAll(ctx context.Context) error {
	var datasets v1alpha1.DatasetList
	var runs v1alpha1.RecoveryRunList
	if err := o.direct.List(ctx, &datasets); err != nil {
		return fmt.Errorf("list datasets: %w", err)
	}
	if err := o.direct.List(ctx, &runs); err != nil {
		return fmt.Errorf("list recovery runs: %w", err)
	}
	for i := range datasets.Items {
		o.remember(&datasets.Items[i], false)
	}
	for i := range runs.Items {
		o.remember(&runs.Items[i], true)
	}
	return nil
}

// list returns the newest known state of every object of a kind.
func list[T client.Object](ctx context.Context, o *objects, into client.ObjectList, items func() []T) ([]T, error) {
	found, err := cachedList(ctx, o, into, items)
	if err != nil {
		return nil, fmt.Errorf("read cache: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := map[objectKey]bool{} // of newer
	for i, obj := range found {
		k := objectKey{reflect.TypeOf(obj), client.ObjectKeyFromObject(obj)}
		n, ok := o.newer[k]
		if !ok {
			continue
		}
		seen[k] = true
		switch {
		case resourceVersion(n.object) > resourceVersion(obj) && n.object.GetUID() == obj.GetUID():
			found[i] = n.object.(T)
		default:
			delete(o.newer, k)
		}
	}
	var zero T
	for k, n := range o.newer {
		if k.kind != reflect.TypeOf(zero) || seen[k] {
			continue
		}
		if time.Since(n.created) > createdGrace {
			delete(o.newer, k)
			continue
		}
		found = append(found, n.object.(T))
	}
	return found, nil
}

func resourceVersion(o client.Object) int64 {
	n, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
