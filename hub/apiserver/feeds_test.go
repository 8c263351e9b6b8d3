package apiserver

import (
	"context"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// TestFeeds is what holds between the hub's own informers and what everybody reads, with
// everything encrypted in the store.
func TestFeeds(t *testing.T) {
	h, _ := startEncryptedHub(t)
	s := &statusesTest{T: t, hub: h, client: h.typed(t, h.server.Loopback())}
	for name, test := range map[string]func(*statusesTest){
		"every kind is as the API serves it": (*statusesTest).fed,
		"changes come in their order":        (*statusesTest).followed,
		"a long list comes in pages":         (*statusesTest).paged,
		"others watch through the API":       (*statusesTest).watchedByOthers,
	} {
		t.Run(name, func(t *testing.T) {
			one := *s
			one.T = t
			test(&one)
		})
	}
	h.stop()
	if source, err := h.server.Feeds().Of(&v1alpha1.Cluster{}); err == nil {
		t.Errorf("a feed after the server has stopped: %v", source)
	}
}

func (s *statusesTest) feed(obj client.Object) feed {
	s.Helper()
	source, err := s.hub.server.Feeds().Of(obj)
	if err != nil {
		s.Fatal(err)
	}
	return source.(feed)
}

// fed fails when a kind is read otherwise than through the API: a default that is not
// stored, for instance.
func (s *statusesTest) fed() {
	s.hub.namespace(s.T, "feeds")
	for _, obj := range engineKinds("feeds") {
		fresh := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(client.Object)
		if err := s.client.Create(s.Context(), obj); err != nil {
			s.Errorf("%T: %v", obj, err)
			continue
		}
		if err := s.client.Get(s.Context(), client.ObjectKeyFromObject(obj), fresh); err != nil {
			s.Fatal(err)
		}
		list, err := s.feed(obj).ListWithContext(s.Context(), metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			s.Errorf("%T: %v", obj, err)
			continue
		}
		items := reflect.ValueOf(list).Elem().FieldByName("Items")
		got := client.Object(nil)
		for i := range items.Len() {
			if o := items.Index(i).Addr().Interface().(client.Object); client.ObjectKeyFromObject(o) == client.ObjectKeyFromObject(obj) {
				got = o
			}
		}
		if got != nil { // a client leaves the kind out
			got.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		}
		if d := cmp.Diff(fresh, got); d != "" {
			s.Errorf("%T (-through the API +fed):\n%s", obj, d)
		}
	}
}

func (s *statusesTest) followed() {
	run := testRun("followed")
	source := s.feed(run)
	list, err := source.List(metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	from := list.(*v1alpha1.RecoveryRunList).ResourceVersion
	s.create(run)
	run.Status.Message = "written by the engine"
	if err := s.hub.server.Statuses().Update(s.Context(), run); err != nil {
		s.Fatal(err)
	}
	if err := s.client.Delete(s.Context(), run.DeepCopy()); err != nil {
		s.Fatal(err)
	}
	for range 2 { // who was away sees the same again
		events, err := source.WatchWithContext(s.Context(), metav1.ListOptions{ResourceVersion: from})
		if err != nil {
			s.Fatal(err)
		}
		last := from
		for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
			event := <-events.ResultChan()
			got, ok := event.Object.(*v1alpha1.RecoveryRun)
			if !ok || event.Type != want || got.Name != run.Name || got.ResourceVersion <= last || (want != watch.Added) != (got.Status.Message == run.Status.Message) {
				s.Fatalf("after version %s there is %+v, want %s", last, event, want)
			}
			last = got.ResourceVersion
		}
		events.Stop()
	}
}

func (s *statusesTest) paged() {
	for i := range 5 {
		s.create(testRun(fmt.Sprint("paged-", i)))
	}
	source, names := s.feed(&v1alpha1.RecoveryRun{}), map[string]bool{}
	options := metav1.ListOptions{Limit: 2}
	for {
		page, err := source.List(options)
		if err != nil {
			s.Fatal(err)
		}
		list := page.(*v1alpha1.RecoveryRunList)
		if len(list.Items) > 2 {
			s.Fatalf("a page of %d", len(list.Items))
		}
		for _, run := range list.Items {
			names[run.Name] = true
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	for i := range 5 {
		if name := fmt.Sprint("paged-", i); !names[name] {
			s.Errorf("%s is on no page", name)
		}
	}
}

// watchedByOthers has an informer of the kind of the day follow runs through the API,
// which has no watch cache for them.
func (s *statusesTest) watchedByOthers() {
	through, err := dynamic.NewForConfig(s.hub.server.Loopback())
	if err != nil {
		s.Fatal(err)
	}
	informer := dynamicinformer.NewFilteredDynamicInformer(through, v1alpha1.GroupVersion.WithResource("recoveryruns"), "", 0, toolscache.Indexers{}, nil).Informer()
	ctx, stop := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { stop(); <-done }()
	s.create(testRun("before"))
	if !toolscache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		s.Fatal("it does not sync")
	}
	s.create(testRun("after"))
	for _, name := range []string{"before", "after"} {
		eventually(s.T, "the informer has "+name, func(context.Context) string {
			if _, ok, err := informer.GetStore().GetByKey(name); err != nil || !ok {
				return fmt.Sprint("it has not: ", err)
			}
			return ""
		})
	}
}

// TestSeldomWatchedKindsHaveNoWatchCache fails when a kind that people watch loses its own.
func TestSeldomWatchedKindsHaveNoWatchCache(t *testing.T) {
	of := func(group, resource string) bool {
		options, err := seldomWatched{cached{}}.GetRESTOptions(schema.GroupResource{Group: group, Resource: resource}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return options.Decorator != nil
	}
	for _, resource := range []string{"recoveryruns", "datasets"} {
		if !of(v1alpha1.GroupVersion.Group, resource) {
			t.Errorf("%s has a watch cache", resource)
		}
		if of("another.example", resource) {
			t.Errorf("%s of another group has none", resource)
		}
	}
	if of(v1alpha1.GroupVersion.Group, "applications") {
		t.Error("applications have no watch cache")
	}
}

// cached stands for upstream's options; no decorator is its own.
type cached struct{}

func (cached) GetRESTOptions(schema.GroupResource, runtime.Object) (genericregistry.RESTOptions, error) {
	return genericregistry.RESTOptions{}, nil
}
