package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	storageerrors "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Statuses writes the status of Tripod's kinds into the API server's storage, below
// its handlers: same keys, same encryption, same revisions, and every watch sees it. It is
// for the hub's own engine alone. What it leaves out is what would judge a stranger:
// admission, the schema, field managers. So no webhook can hold up a failover, and a
// journal costs a fifth of what it costs a client (docs/decisions/0019).
//
// It is safe for use by several goroutines.
type Statuses struct {
	options genericregistry.RESTOptionsGetter
	diary   *diary

	mu     sync.Mutex
	closed bool
	stores map[schema.GroupResource]statusStore
}

// statusStore is the storage of one kind.
type statusStore struct {
	storage.Interface
	prefix  string
	destroy factory.DestroyFunc
	// latest are the objects that were written last, by key: who writes one again need not
	// read it, if nobody else has written it. The store says so.
	latest *lru.Cache
}

// latestKept bounds how many objects of a kind are kept, of a few kilobytes each.
const latestKept = 2048

func newStatuses(options genericregistry.RESTOptionsGetter, d *diary) *Statuses {
	return &Statuses{options: options, diary: d, stores: map[schema.GroupResource]statusStore{}}
}

// Update replaces the status of the stored object with obj's, and sets obj's resource
// version and its status, as it is stored. The rest of the object stays as it is stored,
// byte for byte. Its errors are an API server's: a conflict unless obj has the stored
// resource version, not found. After any other error it may have been written.
func (s *Statuses) Update(ctx context.Context, obj client.Object) error {
	begun := time.Now()
	resource, err := resourceOf(obj)
	if err != nil {
		return err
	}
	field := reflect.ValueOf(obj).Elem().FieldByName("Status")
	if !field.IsValid() {
		return fmt.Errorf("apiserver: %T has no status", obj)
	}
	status, err := json.Marshal(field.Interface())
	if err != nil {
		return fmt.Errorf("apiserver: encode the status of %s: %w", client.ObjectKeyFromObject(obj), err)
	}
	store, err := s.store(resource)
	if err != nil {
		return err
	}
	err = store.replace(ctx, resource, obj, status)
	s.diary.note(resource, obj, status, begun, err)
	if err != nil {
		return err
	}
	return reread(status, field)
}

// reread has the caller's status be what was written: times lose what JSON does not carry.
func reread(status json.RawMessage, into reflect.Value) error {
	stored := reflect.New(into.Type())
	if err := json.Unmarshal(status, stored.Interface()); err != nil {
		return fmt.Errorf("apiserver: decode a status that was written: %w", err)
	}
	into.Set(stored.Elem())
	return nil
}

func (s statusStore) replace(ctx context.Context, resource schema.GroupResource, obj client.Object, status json.RawMessage) error {
	wanted, err := s.Versioner().ParseResourceVersion(obj.GetResourceVersion())
	if err != nil || wanted == 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %q has resource version %q: read it first", resource, obj.GetName(), obj.GetResourceVersion()))
	}
	key := path.Join(s.prefix, obj.GetNamespace(), obj.GetName())
	var cached runtime.Object // nil reads it
	if r, ok := s.latest.Get(key); ok && r.(*record).ResourceVersion == obj.GetResourceVersion() {
		cached = r.(*record).DeepCopyObject()
	}
	written := &record{}
	err = s.GuaranteedUpdate(ctx, key, written, false, nil, func(stored runtime.Object, is storage.ResponseMeta) (runtime.Object, *uint64, error) {
		if is.ResourceVersion != wanted {
			return nil, nil, apierrors.NewConflict(resource, obj.GetName(), fmt.Errorf("it is at resource version %d, not %d: read it again", is.ResourceVersion, wanted))
		}
		next := stored.(*record)
		next.fields["status"] = status
		return next, nil, nil
	}, cached)
	if err != nil {
		s.latest.Remove(key)
		return storageerrors.InterpretUpdateError(err, resource, obj.GetName())
	}
	s.latest.Add(key, written)
	obj.SetResourceVersion(written.ResourceVersion)
	return nil
}

// store opens the storage of a kind when it is first written.
func (s *Statuses) store(resource schema.GroupResource) (statusStore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return statusStore{}, apierrors.NewServiceUnavailable("the hub member stops")
	}
	if store, ok := s.stores[resource]; ok {
		return store, nil
	}
	kept, prefix, destroy, err := openStorage(s.options, resource, recordCodec{}, func() runtime.Object { return &record{} },
		func() runtime.Object { return &metav1.PartialObjectMetadataList{} })
	if err != nil {
		return statusStore{}, err
	}
	store := statusStore{kept, prefix, destroy, lru.New(latestKept)}
	s.stores[resource] = store
	return store, nil
}

// close lets go of the store. Whoever writes meanwhile is told that it has.
func (s *Statuses) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, store := range s.stores {
		store.destroy()
	}
}

var tripodScheme = sync.OnceValues(func() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, v1alpha1.AddToScheme(scheme)
})

func resourceOf(obj client.Object) (schema.GroupResource, error) {
	kind, err := kindOf(obj)
	if err != nil {
		return schema.GroupResource{}, err
	}
	resource, _ := meta.UnsafeGuessKindToResource(kind) // as the CRDs have it: see the test
	return resource.GroupResource(), nil
}

func kindOf(obj client.Object) (schema.GroupVersionKind, error) {
	scheme, err := tripodScheme()
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	kinds, _, err := scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, fmt.Errorf("apiserver: %T is none of Tripod's kinds: %w", obj, err)
	}
	return kinds[0], nil
}
