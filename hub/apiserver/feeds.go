package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kjson "sigs.k8s.io/json"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Feeds list and watch Tripod's kinds in the API server's storage, below its handlers and
// its watch caches: same keys, same encryption, same revisions, and each object is decoded
// once, into its type. They are for the hub's own informers (docs/decisions/0020).
//
// They are safe for use by several goroutines.
type Feeds struct {
	options genericregistry.RESTOptionsGetter

	mu     sync.Mutex
	closed bool
	open   map[feedKey]feed
}

// feedKey names a feed: all of the objects, or what all have.
type feedKey struct {
	resource schema.GroupResource
	whole    bool
}

func newFeeds(options genericregistry.RESTOptionsGetter) *Feeds {
	return &Feeds{options: options, open: map[feedKey]feed{}}
}

// Of returns the feed of obj's kind, for an informer.
func (f *Feeds) Of(obj client.Object) (toolscache.ListerWatcher, error) {
	resource, err := resourceOf(obj)
	if err != nil {
		return nil, err
	}
	kind, err := kindOf(obj)
	if err != nil {
		return nil, err
	}
	scheme, err := tripodScheme()
	if err != nil {
		return nil, err
	}
	fresh := func(kind string) func() runtime.Object {
		return func() runtime.Object {
			o, err := scheme.New(v1alpha1.GroupVersion.WithKind(kind))
			if err != nil { // it was found above
				panic(err)
			}
			return o
		}
	}
	return f.feed(feedKey{resource, true}, fresh(kind.Kind), fresh(kind.Kind+"List"))
}

// Metadata returns the feed of what all objects have, of one of Tripod's kinds: of each
// object nothing else is kept.
func (f *Feeds) Metadata(resource schema.GroupResource) (toolscache.ListerWatcher, error) {
	return f.feed(feedKey{resource, false}, func() runtime.Object { return &metav1.PartialObjectMetadata{} }, func() runtime.Object { return &metav1.PartialObjectMetadataList{} })
}

func (f *Feeds) feed(key feedKey, one, many func() runtime.Object) (toolscache.ListerWatcher, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.New("apiserver: the hub member stops")
	}
	if known, ok := f.open[key]; ok {
		return known, nil
	}
	kept, prefix, destroy, err := openStorage(f.options, key.resource, typedCodec{one}, one, many)
	if err != nil {
		return nil, err
	}
	f.open[key] = feed{kept, prefix, many, destroy}
	return f.open[key], nil
}

// close lets go of the store.
func (f *Feeds) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for key, open := range f.open {
		open.destroy()
		delete(f.open, key)
	}
}

// openStorage opens upstream's own storage of a custom resource with another codec, and
// says where in it the resource is.
func openStorage(options genericregistry.RESTOptionsGetter, resource schema.GroupResource, codec runtime.Codec, one, many func() runtime.Object) (storage.Interface, string, factory.DestroyFunc, error) {
	own, err := options.GetRESTOptions(resource, nil)
	if err != nil {
		return nil, "", nil, fmt.Errorf("apiserver: find the storage of %s: %w", resource, err)
	}
	config := *own.StorageConfig
	config.Codec = codec
	prefix := "/" + own.ResourcePrefix
	kept, destroy, err := factory.Create(config, one, many, prefix)
	if err != nil {
		return nil, "", nil, fmt.Errorf("apiserver: open the storage of %s: %w", resource, err)
	}
	return kept, prefix, destroy, nil
}

// feed is one kind's.
type feed struct {
	store   storage.Interface
	prefix  string
	many    func() runtime.Object
	destroy factory.DestroyFunc
}

var _ toolscache.ListerWatcherWithContext = feed{}

// ListWithContext implements toolscache.ListerWatcherWithContext.
func (f feed) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list := f.many()
	// Whatever the store has now: an older state is of no use to an informer that begins.
	every := storage.Everything
	every.Limit, every.Continue = options.Limit, options.Continue
	err := f.store.GetList(ctx, f.prefix, storage.ListOptions{Predicate: every, Recursive: true}, list)
	return list, err
}

// WatchWithContext implements toolscache.ListerWatcherWithContext.
func (f feed) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return f.store.Watch(ctx, f.prefix, storage.ListOptions{ResourceVersion: options.ResourceVersion, Predicate: storage.Everything, Recursive: true})
}

// List implements toolscache.ListerWatcher.
func (f feed) List(options metav1.ListOptions) (runtime.Object, error) {
	return f.ListWithContext(context.Background(), options)
}

// Watch implements toolscache.ListerWatcher.
func (f feed) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return f.WatchWithContext(context.Background(), options)
}

// IsWatchListSemanticsUnSupported has a reflector list and then watch.
func (feed) IsWatchListSemanticsUnSupported() bool { return true }

// typedCodec decodes a custom resource as it is stored into its type. It encodes nothing.
type typedCodec struct{ fresh func() runtime.Object }

var _ runtime.Codec = typedCodec{}

// Identifier implements runtime.Encoder.
func (typedCodec) Identifier() runtime.Identifier { return "tripod-typed" }

// Encode implements runtime.Encoder.
func (typedCodec) Encode(obj runtime.Object, _ io.Writer) error {
	return fmt.Errorf("%T is not written here", obj)
}

// Decode implements runtime.Decoder.
func (c typedCodec) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into == nil {
		into = c.fresh()
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, into); err != nil {
		return nil, nil, fmt.Errorf("decode a stored %T: %w", into, err)
	}
	kind := into.GetObjectKind().GroupVersionKind()
	return into, &kind, nil
}
