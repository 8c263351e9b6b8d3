package conformance

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/utils/clock"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

const valuePrefix = "test!"

var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

func init() {
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
}

// etcd3Store is what of upstream's unexported store type is used here.
type etcd3Store interface {
	storage.Interface
	Close()
	EnableResourceSizeEstimation(storage.KeysFunc) error
}

// fixture is Kubernetes' etcd3 store on a hub store.
type fixture struct {
	etcd3Store
	etcd3       etcd3Store
	client      *kubernetes.Client
	codec       runtime.Codec
	transformer *switchable
}

// switchable is a transformer that tests replace while the store runs. Upstream's
// tests reach into the store for that.
type switchable struct {
	current atomic.Pointer[value.Transformer]
}

func (s *switchable) swap(to value.Transformer) func() {
	old := s.current.Swap(&to)
	return func() { s.current.Store(old) }
}

func (s *switchable) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	return (*s.current.Load()).TransformFromStorage(ctx, data, c)
}

func (s *switchable) TransformToStorage(ctx context.Context, data []byte, c value.Context) ([]byte, error) {
	return (*s.current.Load()).TransformToStorage(ctx, data, c)
}

type corrupted struct{ value.Transformer }

func (corrupted) TransformFromStorage(context.Context, []byte, value.Context) ([]byte, bool, error) {
	return nil, true, fmt.Errorf("bits flipped")
}

func (f *fixture) CorruptTransformer() func() {
	return f.transformer.swap(corrupted{*f.transformer.current.Load()})
}

func (f *fixture) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	changed := *f.prefix()
	return f.transformer.swap(modify(&changed))
}

func (f *fixture) prefix() *storagetesting.PrefixTransformer {
	return (*f.transformer.current.Load()).(*storagetesting.PrefixTransformer)
}

func plain(run func(context.Context, *testing.T, storage.Interface)) func(context.Context, *testing.T, int) {
	return func(ctx context.Context, t *testing.T, members int) { run(ctx, t, setup(t, members)) }
}

// setup starts a hub store of that many members and connects to one of them: a
// follower if there is one.
func setup(t *testing.T, members int, configure ...func(*store.Config, *etcdapi.Config)) *fixture {
	t.Helper()
	cluster := storetest.Start(t, members, func(s *store.Config, a *etcdapi.Config) {
		// Upstream's tests take a change of leader for a failure, and a busy machine
		// must not bring one about.
		s.Timing = store.WAN()
		if members == 1 {
			s.Timing = store.Timing{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, LeaderLease: 25 * time.Millisecond, Commit: 5 * time.Millisecond}
		}
		for _, c := range configure {
			c(s, a)
		}
	})
	target := cluster.Leader()
	if members > 1 {
		target = cluster.Follower()
	}
	client, err := kubernetes.New(clientv3.Config{
		Endpoints: []string{"https://" + target.Address.PeerAddress}, DialTimeout: 10 * time.Second,
		TLS: cluster.CA.Member(t, "apiserver"), Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)

	f := &fixture{client: client, codec: apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion), transformer: &switchable{}}
	f.transformer.swap(storagetesting.NewPrefixTransformer([]byte(valuePrefix), false))
	versioner := storage.APIObjectVersioner{}
	var transformer value.Transformer = f.transformer
	decoder := etcd3.NewDefaultDecoder(f.codec, versioner)
	if utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion) {
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1
	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	s, err := etcd3.New(client, compactor, f.codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, transformer, leases, decoder, versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	f.etcd3Store, f.etcd3 = s, s
	return f
}

func (f *fixture) checkInvariants(ctx context.Context, t *testing.T, key string) {
	got, err := f.client.KV.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		t.Fatalf("nothing is stored under %s", key)
	}
	decoded, err := runtime.Decode(f.codec, got.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatalf("decode %s: %v", key, err)
	}
	if pod := decoded.(*example.Pod); pod.ResourceVersion != "" {
		t.Errorf("stored with resource version %q, want none", pod.ResourceVersion)
	}
}

func (f *fixture) increaseRV(ctx context.Context, t *testing.T) int64 {
	resp, err := f.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func (f *fixture) keys(ctx context.Context) ([]string, error) {
	got, err := f.client.KV.Get(ctx, "/pods/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys, nil
}

func (f *fixture) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	rv, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, f.client.Client, 0, int64(rv))
	if err != nil {
		_, _, _, err = etcd3.Compact(ctx, f.client.Client, version, int64(rv))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for f.etcd3.CompactRevision() != int64(rv) {
		select {
		case <-ctx.Done():
			t.Fatalf("compaction to %d is not observed: %v", rv, ctx.Err())
		case <-tick.C:
		}
	}
}

// maxLimit is etcd3's largest page.
const maxLimit = 10000

// checkCalls is upstream's rule for how many reads a paged list may take: pages
// double until everything is covered.
func (f *fixture) checkCalls(t *testing.T, pageSize, processed uint64) {
	if reads := f.prefix().GetReadsAndReset(); reads != processed {
		t.Errorf("%d objects were read, want %d", reads, processed)
	}
	calls := uint64(1)
	if pageSize != 0 {
		limit := pageSize
		for sum := uint64(1); sum < processed; {
			limit = min(2*limit, maxLimit)
			sum += limit
			calls++
		}
	}
	if reads := f.client.KV.(*storagetesting.KVRecorder).GetReadsAndReset(); reads != calls {
		t.Fatalf("%d calls, want %d", reads, calls)
	}
}

// cached puts Kubernetes' watch cache on top.
func cached(t *testing.T, f *fixture) storage.Interface {
	t.Helper()
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: f.etcd3, Versioner: storage.APIObjectVersioner{},
		GroupResource:       schema.GroupResource{Resource: "pods"},
		EventsHistoryWindow: cacher.DefaultEventFreshDuration,
		ResourcePrefix:      "/pods/",
		KeyFunc:             func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc("/pods/", obj) },
		GetAttrsFunc:        storage.DefaultNamespaceScopedAttr,
		NewFunc:             func() runtime.Object { return &example.Pod{} },
		NewListFunc:         func() runtime.Object { return &example.PodList{} },
		Codec:               f.codec, Clock: clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	d := cacher.NewCacheDelegator(c, f.etcd3)
	t.Cleanup(d.Stop)
	if err := wait(t.Context(), c.Ready); err != nil {
		t.Fatal(err)
	}
	return d
}

func wait(ctx context.Context, ready func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
