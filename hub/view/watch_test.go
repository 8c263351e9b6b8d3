package view

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"pgregory.net/rapid"

	"tripod.dev/tripod/syncer"
)

const patience = 20 * time.Second

// watcher reads the events of one watch as a client does.
type watcher struct {
	t       *testing.T
	decoder *json.Decoder
}

func (f *fleet) watch(path string, parameters url.Values, accept string) *watcher {
	f.t.Helper()
	parameters.Set("watch", "true")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server.URL+path+"?"+parameters.Encode(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	response, err := f.server.Client().Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { cancel(); response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		f.t.Fatalf("watch %s = %d", path, response.StatusCode)
	}
	return &watcher{f.t, json.NewDecoder(response.Body)}
}

type seen struct {
	Type   watch.EventType            `json:"type"`
	Object *unstructured.Unstructured `json:"-"`
	Raw    map[string]any             `json:"object"`
}

func (w *watcher) next() seen {
	w.t.Helper()
	var e seen
	if err := w.decoder.Decode(&e); err != nil {
		w.t.Fatalf("read an event: %v", err)
	}
	e.Object = &unstructured.Unstructured{Object: e.Raw}
	return e
}

// expect reads the next events: "TYPE cluster/name".
func (w *watcher) expect(want ...string) (last seen) {
	w.t.Helper()
	for _, one := range want {
		last = w.next()
		got := fmt.Sprintf("%s %s/%s", last.Type, last.Object.GetAnnotations()[ClusterName], last.Object.GetName())
		if got != one {
			w.t.Fatalf("got %s, want %s: %v", got, one, last.Raw)
		}
	}
	return last
}

func (f *fleet) version(path string) string {
	_, _, list := f.fetch(path, plain)
	return list["metadata"].(map[string]any)["resourceVersion"].(string)
}

func TestAWatchFromAListMissesNothing(t *testing.T) {
	f, north, south := threePods(t)
	from := f.version("/api/v1/pods")
	north.put(podResource, "pay", "new", nil, nil)
	north.sync()
	w := f.watch("/api/v1/pods", url.Values{"resourceVersion": {from}}, plain)
	added := w.expect("ADDED north-1/new")
	south.remove(podResource, "pay", "ledger-0")
	south.sync()
	deleted := w.expect("DELETED south-1/ledger-0")
	if added.Object.GetResourceVersion() >= deleted.Object.GetResourceVersion() {
		t.Errorf("versions do not grow: %s, then %s", added.Object.GetResourceVersion(), deleted.Object.GetResourceVersion())
	}
	again := f.watch("/api/v1/pods", url.Values{"resourceVersion": {added.Object.GetResourceVersion()}}, plain)
	again.expect("DELETED south-1/ledger-0")
}

func TestAWatchWithASelectorSeesObjectsComeAndGo(t *testing.T) {
	f, north, _ := threePods(t)
	w := f.watch("/api/v1/pods", url.Values{"resourceVersion": {f.version("/api/v1/pods")},
		"labelSelector": {"app=front,tripod.dev/cluster=north-1"}}, plain)
	north.put(podResource, "web", "front-0", map[string]string{"app": "other"}, nil)
	north.sync()
	w.expect("DELETED north-1/front-0")
	north.put(podResource, "web", "front-0", map[string]string{"app": "front"}, nil)
	north.sync()
	w.expect("ADDED north-1/front-0")
	north.put(podResource, "web", "front-0", map[string]string{"app": "front"}, map[string]any{"spec": map[string]any{}})
	north.sync()
	w.expect("MODIFIED north-1/front-0")
}

func TestAReconnectCausesEventsForTheDifferenceOnly(t *testing.T) {
	f, north, _ := threePods(t)
	w := f.watch("/api/v1/pods", url.Values{"resourceVersion": {f.version("/api/v1/pods")}}, plain)
	north.disconnect()
	north.remove(podResource, "web", "front-0")
	north.put(podResource, "web", "front-1", nil, nil)
	north.connect()
	north.sync()
	w.expect("ADDED north-1/front-1", "DELETED north-1/front-0")
	north.put(podResource, "web", "last", nil, nil)
	north.sync()
	w.expect("ADDED north-1/last")
}

func TestAWatchFromAnUnknownVersionIsExpired(t *testing.T) {
	f := newFleet(t, Config{History: 4})
	a := newAgent(t, f.View, "north-1", podResource)
	a.sync()
	old := f.version("/api/v1/pods")
	for i := range 20 {
		a.put(podResource, "ns", fmt.Sprint("p", i), nil, nil)
		a.sync()
	}
	for name, version := range map[string]string{
		"one that was forgotten":              old,
		"one of a member that started before": "1999999999999999999",
		"one of a member that started later":  "3000000000000000000",
		"one of a member cluster":             "123",
	} {
		e := f.watch("/api/v1/pods", url.Values{"resourceVersion": {version}}, plain).next()
		if e.Type != watch.Error || e.Raw["code"] != float64(410) || e.Raw["reason"] != string(metav1.StatusReasonExpired) {
			t.Errorf("%s: got %v", name, e)
		}
	}
}

func TestBookmarksAndInitialEvents(t *testing.T) {
	f, _, _ := threePods(t)
	w := f.watch("/api/v1/namespaces/web/pods", url.Values{"sendInitialEvents": {"true"}, "cluster": {"north-1"},
		"resourceVersionMatch": {"NotOlderThan"}, "allowWatchBookmarks": {"true"}}, plain)
	w.expect("ADDED north-1/front-0")
	mark := w.next()
	if mark.Type != watch.Bookmark || mark.Object.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" ||
		mark.Object.GetAnnotations()[AgesAnnotation] != "north-1=0s" || mark.Object.GetKind() != "Pod" {
		t.Fatalf("got %v", mark)
	}
	f.stepUntil(30*time.Second, func() bool { return w.next().Type == watch.Bookmark })
}

// stepUntil steps the clock once somebody waits for it.
func (f *fleet) stepUntil(by time.Duration, holds func() bool) {
	f.t.Helper()
	if err := wait.PollUntilContextTimeout(f.t.Context(), time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return f.clock.HasWaiters(), nil
	}); err != nil {
		f.t.Fatal("nobody waits for the clock")
	}
	f.clock.Step(by)
	if !holds() {
		f.t.Fatal("the step had no effect")
	}
}

func TestWatchesOfTablesHaveTheColumnsOnce(t *testing.T) {
	f, north, _ := threePods(t)
	w := f.watch("/api/v1/namespaces/web/pods", url.Values{}, tableAccept)
	first := w.next()
	north.put(podResource, "web", "front-0", nil, nil)
	north.sync()
	second := w.next()
	cells := func(e seen) any { return e.Raw["rows"].([]any)[0].(map[string]any)["cells"].([]any)[:2] }
	got := []any{first.Type, first.Raw["kind"], cells(first), len(first.Raw["columnDefinitions"].([]any)), second.Type, cells(second), second.Raw["columnDefinitions"]}
	want := []any{watch.Added, "Table", []any{"north-1", "front-0"}, 3, watch.Modified, []any{"north-1", "front-0"}, nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAWatchEndsWithTheRightToIt(t *testing.T) {
	tests := map[string]struct {
		deny string
		code float64
	}{
		"to the resource":  {"pods", 403},
		"to see a cluster": {"clusters/south-1", 410},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, _, _ := threePods(t)
			w := f.watch("/api/v1/pods", url.Values{}, plain)
			w.expect("ADDED north-1/ledger-0", "ADDED north-1/front-0", "ADDED south-1/ledger-0")
			f.rights.deny(test.deny)
			f.stepUntil(5*time.Second, func() bool {
				e := w.next()
				return e.Type == watch.Error && e.Raw["code"] == test.code
			})
		})
	}
}

func TestAWatchNeverShowsAClusterThatMayNotBeSeen(t *testing.T) {
	f, north, south := threePods(t)
	f.rights.deny("clusters/south-1")
	w := f.watch("/api/v1/pods", url.Values{"resourceVersion": {f.version("/api/v1/pods")}}, plain)
	south.put(podResource, "pay", "hidden", nil, nil)
	south.sync()
	north.put(podResource, "pay", "shown", nil, nil)
	north.sync()
	w.expect("ADDED north-1/shown")
}

func TestALateDeltaOfAnotherReplicaIsNothing(t *testing.T) {
	f, north, _ := threePods(t)
	late := *north
	north.connect() // another session streams from here on
	north.sync()
	late.put(podResource, "pay", "late", nil, nil)
	next, _, err := syncer.Step(late.journals[podResource.GroupVersionResource], syncer.Cursor{}, late.limit, dropFrame{wire{&late, podResource}})
	if err != nil || next.Checkpoint() == 0 {
		t.Fatal(err)
	}
	_, header, list := f.fetch("/api/v1/pods?cluster=north-1", plain)
	if diff := cmp.Diff([]string{"north-1/pay/ledger-0", "north-1/web/front-0"}, names(list)); diff != "" || header.Get(AgesHeader) != "north-1=0s" {
		t.Errorf("%s\n%s", header.Get(AgesHeader), diff)
	}
}

// dropFrame sends a snapshot's objects as if they were changes.
type dropFrame struct{ wire }

func (d dropFrame) Put(batch syncer.Batch) error {
	batch.Begin, batch.End = false, false
	return d.wire.Put(batch)
}

func TestAClientGoReflectorHoldsWhatTheViewHolds(t *testing.T) {
	f, north, south := threePods(t)
	client := f.client()
	store := cache.NewStore(func(obj any) (string, error) {
		o := obj.(*unstructured.Unstructured)
		return fmt.Sprintf("%s/%s/%s", o.GetAnnotations()[ClusterName], o.GetNamespace(), o.GetName()), nil
	})
	pods := client.Resource(podResource.GroupVersionResource)
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{ListWithContextFunc: listOf(pods.List), WatchFuncWithContext: pods.Watch}, client)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		cache.NewReflectorWithOptions(source, &unstructured.Unstructured{}, store, cache.ReflectorOptions{}).RunWithContext(ctx)
	}()
	defer func() { cancel(); <-done }()
	holds := func(want ...string) {
		t.Helper()
		if err := wait.PollUntilContextTimeout(ctx, time.Millisecond, patience, true, func(context.Context) (bool, error) {
			return cmp.Equal(len(want), len(store.ListKeys())) && containsAll(store.ListKeys(), want), nil
		}); err != nil {
			t.Fatalf("the store holds %v, want %v", store.ListKeys(), want)
		}
	}
	holds("north-1/pay/ledger-0", "north-1/web/front-0", "south-1/pay/ledger-0")
	north.remove(podResource, "web", "front-0")
	north.sync()
	south.put(podResource, "web", "front-9", nil, nil)
	south.sync()
	holds("north-1/pay/ledger-0", "south-1/pay/ledger-0", "south-1/web/front-9")
}

func TestTheViewEndsWithWhatTheAgentsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, err := New(Config{Start: startVersion, History: rapid.IntRange(1, 8).Draw(t, "history")})
		if err != nil {
			t.Fatal(err)
		}
		agents := []*agent{newAgent(t, v, "a", podResource), newAgent(t, v, "b", podResource)}
		mirror := map[string]string{}
		mirrored := uint64(0)
		collection := v.collection(podResource)
		all := func(*object) bool { return true }
		follow := func() {
			events, upTo, _, ok := collection.since(mirrored)
			if !ok {
				clear(mirror)
				taken := collection.snapshot(func(string) bool { return true })
				taken.walk(place{}, "", func(o *object) bool { mirror[id(o)] = o.source; return true })
				mirrored = taken.version
				return
			}
			for _, e := range events {
				if e.version <= mirrored || e.version > upTo {
					t.Fatalf("event %d is outside of (%d, %d]", e.version, mirrored, upTo)
				}
				kind, o, _ := e.seenBy(all)
				_, known := mirror[id(o)]
				if known == (kind == watch.Added) {
					t.Fatalf("%s of %s, known %v", kind, id(o), known)
				}
				if kind == watch.Deleted {
					delete(mirror, id(o))
				} else {
					mirror[id(o)] = o.source
				}
			}
			mirrored = upTo
		}
		name := rapid.Map(rapid.IntRange(0, 5), func(i int) string { return fmt.Sprint("p", i) })
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			a := agents[rapid.IntRange(0, 1).Draw(t, "agent")]
			switch rapid.IntRange(0, 9).Draw(t, "action") {
			case 0, 1, 2:
				a.put(podResource, "ns", name.Draw(t, "name"), nil, nil)
			case 3:
				a.remove(podResource, "ns", name.Draw(t, "name"))
			case 4:
				a.disconnect()
				a.connect()
			case 5: // another replica takes over before the first is known to be gone
				old := a.session
				a.connect()
				a.step(podResource)
				v.Disconnected(a.name, fmt.Sprint("agent/", old))
			case 6:
				follow()
			default:
				a.step(podResource)
			}
		}
		want := map[string]string{}
		for _, a := range agents {
			a.sync()
			maps.Copy(want, a.contents())
		}
		got := map[string]string{}
		taken := collection.snapshot(func(string) bool { return true })
		taken.walk(place{}, "", func(o *object) bool { got[id(o)] = o.source; return true })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("the view differs (-agents +view):\n%s", diff)
		}
		follow()
		if diff := cmp.Diff(want, mirror); diff != "" {
			t.Fatalf("a watch differs (-agents +watch):\n%s", diff)
		}
		for _, f := range v.Freshness(podResource.GroupVersionResource) {
			if !f.Whole || f.Age != 0 {
				t.Fatalf("not fresh: %+v", f)
			}
		}
	})
}

func id(o *object) string { return o.cluster + "/" + o.key.Name }

// contents are the agent's objects as the view identifies them.
func (a *agent) contents() map[string]string {
	held := map[string]string{}
	var cursor syncer.Cursor
	for {
		batch, next, ok := a.journals[podResource.GroupVersionResource].Next(cursor, a.limit)
		if !ok {
			return held
		}
		for _, upsert := range batch.Upserts {
			o, err := parse(a.name, podResource, upsert.JSON)
			if err != nil {
				a.t.Fatal(err)
			}
			held[id(o)] = o.source
		}
		cursor = next
	}
}

func containsAll(keys, want []string) bool {
	held := map[string]bool{}
	for _, key := range keys {
		held[key] = true
	}
	for _, key := range want {
		if !held[key] {
			return false
		}
	}
	return true
}

// listOf makes a typed list function one of the kind that reflectors want.
func listOf[T runtime.Object](list func(context.Context, metav1.ListOptions) (T, error)) cache.ListWithContextFunc {
	return func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return list(ctx, options)
	}
}
