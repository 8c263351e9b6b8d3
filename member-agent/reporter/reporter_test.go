package reporter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	secrets    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	nodesGVR   = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	podsGVR    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	widgets    = schema.GroupVersionResource{Group: "example.test", Version: "v1", Resource: "widgets"}
	crds       = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

	kinds = map[schema.GroupVersionResource]string{
		configMaps: "ConfigMap", secrets: "Secret", nodesGVR: "Node", podsGVR: "Pod", widgets: "Widget",
		crds: "CustomResourceDefinition",
	}
)

// apiServer is what the reporter sees of its cluster.
type apiServer struct {
	*fake.FakeDynamicClient
	mu     sync.Mutex
	served map[schema.GroupVersionResource]bool
	err    error
}

func newAPIServer(served ...schema.GroupVersionResource) *apiServer {
	lists := map[schema.GroupVersionResource]string{}
	for gvr, kind := range kinds {
		lists[gvr] = kind + "List"
	}
	s := &apiServer{
		FakeDynamicClient: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists),
		served:            map[schema.GroupVersionResource]bool{},
	}
	s.serve(append(served, nodesGVR, podsGVR)...)
	return s
}

func (s *apiServer) serve(resources ...schema.GroupVersionResource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, gvr := range resources {
		s.served[gvr] = true
	}
}

func (s *apiServer) ServerVersion() (*version.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &version.Info{GitVersion: "v1.36.3"}, s.err
}

func (s *apiServer) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lists []*metav1.APIResourceList
	for gvr := range s.served {
		lists = append(lists, &metav1.APIResourceList{
			GroupVersion: gvr.GroupVersion().String(),
			APIResources: []metav1.APIResource{{Name: gvr.Resource, Kind: kinds[gvr], Namespaced: gvr != nodesGVR, Verbs: []string{"list", "watch"}}},
		})
	}
	return lists, s.err
}

var versions int

func object(gvr schema.GroupVersionResource, name string, fields map[string]any) *unstructured.Unstructured {
	versions++
	content := map[string]any{
		"apiVersion": gvr.GroupVersion().String(), "kind": kinds[gvr],
		"metadata": map[string]any{"name": name, "namespace": "default", "resourceVersion": fmt.Sprint(versions)},
	}
	for key, value := range fields {
		content[key] = value
	}
	if gvr == nodesGVR || gvr == crds {
		delete(content["metadata"].(map[string]any), "namespace")
	}
	return &unstructured.Unstructured{Object: content}
}

func (s *apiServer) put(t *testing.T, gvr schema.GroupVersionResource, o *unstructured.Unstructured) {
	t.Helper()
	client := s.Resource(gvr).Namespace(o.GetNamespace())
	_, err := client.Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		_, err = client.Update(t.Context(), o, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// member is a hub member's picture of the cluster.
type member struct {
	mu       sync.Mutex
	objects  map[string]map[string]any
	stale    map[string]map[string]bool
	begun    map[string]int
	ages     map[string]int64
	facts    *agentv1.ClusterFacts
	messages chan struct{}
	gate     chan struct{}
}

func newMember() *member {
	return &member{
		objects: map[string]map[string]any{}, stale: map[string]map[string]bool{}, begun: map[string]int{},
		ages: map[string]int64{}, messages: make(chan struct{}, 1),
	}
}

func (m *member) send(message *agentv1.AgentMessage) error {
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if facts := message.GetFacts(); facts != nil {
		m.facts = facts
	}
	if delta := message.GetView(); delta != nil {
		m.take(delta)
	}
	select {
	case m.messages <- struct{}{}:
	default:
	}
	return nil
}

func (m *member) take(delta *agentv1.ViewDelta) {
	resource := delta.Resource.Resource
	m.ages[resource] = delta.AgeMillis
	if delta.SnapshotBegin {
		m.begun[resource]++
		m.stale[resource] = map[string]bool{}
		for name := range m.objects[resource] {
			m.stale[resource][name] = true
		}
	}
	if m.objects[resource] == nil {
		m.objects[resource] = map[string]any{}
	}
	for _, upsert := range delta.Upserts {
		var content map[string]any
		if err := json.Unmarshal(upsert.Object, &content); err != nil {
			panic(err)
		}
		name := (&unstructured.Unstructured{Object: content}).GetName()
		m.objects[resource][name] = content
		delete(m.stale[resource], name)
	}
	for _, key := range delta.Deletes {
		delete(m.objects[resource], key.Name)
	}
	if delta.SnapshotEnd {
		for name := range m.stale[resource] {
			delete(m.objects[resource], name)
		}
	}
}

func (m *member) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		m.mu.Lock()
		ok := holds()
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-m.messages:
		case <-deadline:
			t.Fatalf("waited in vain until %s: objects %v, ages %v, facts %v", what, m.objects, m.ages, m.facts)
		}
	}
}

func start(t *testing.T, server *apiServer, config Config, members ...*member) *Reporter {
	t.Helper()
	config.discovery, config.dynamic = server, server
	if config.FactsEvery == 0 {
		config.FactsEvery = 20 * time.Millisecond
	}
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = r.Run(ctx) })
	for _, m := range members {
		group.Go(func() {
			if err := r.Subscribe(ctx, m.send); !errors.Is(err, context.Canceled) {
				t.Errorf("Subscribe = %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); group.Wait() })
	return r
}

func TestEachMemberGetsTheObjectsAndWhatChanges(t *testing.T) {
	server := newAPIServer(configMaps, secrets)
	server.put(t, configMaps, object(configMaps, "a", nil))
	server.put(t, secrets, object(secrets, "s", map[string]any{"data": map[string]any{"password": "aHVudGVyMg=="}}))
	first, second := newMember(), newMember()
	start(t, server, Config{}, first, second)
	for _, m := range []*member{first, second} {
		m.wait(t, "the snapshot is there", func() bool { return m.objects["configmaps"]["a"] != nil && m.objects["secrets"]["s"] != nil })
	}
	first.mu.Lock()
	if diff := cmp.Diff(map[string]any{"password": ""}, first.objects["secrets"]["s"].(map[string]any)["data"]); diff != "" {
		t.Errorf("a secret left the cluster:\n%s", diff)
	}
	first.mu.Unlock()
	server.put(t, configMaps, object(configMaps, "b", map[string]any{"data": map[string]any{"k": "v"}}))
	if err := server.Resource(configMaps).Namespace("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*member{first, second} {
		m.wait(t, "the changes are there", func() bool { return m.objects["configmaps"]["a"] == nil && m.objects["configmaps"]["b"] != nil })
		m.mu.Lock()
		if m.begun["configmaps"] != 1 {
			t.Errorf("%d snapshots were sent, want 1", m.begun["configmaps"])
		}
		m.mu.Unlock()
	}
}

func TestANewCustomResourceIsWatchedWhenItsDefinitionAppears(t *testing.T) {
	server := newAPIServer(crds)
	m := newMember()
	start(t, server, Config{RediscoverEvery: time.Hour}, m)
	m.wait(t, "definitions are listed", func() bool { return m.begun["customresourcedefinitions"] == 1 })
	server.put(t, widgets, object(widgets, "w", nil))
	server.serve(widgets)
	server.put(t, crds, object(crds, "widgets.example.test", nil))
	m.wait(t, "the widget is there", func() bool { return m.objects["widgets"]["w"] != nil })
}

func TestAResourceThatCannotBeListedIsNotShownAsEmpty(t *testing.T) {
	server := newAPIServer(configMaps)
	var mu sync.Mutex
	broken := true
	server.PrependReactor("list", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	})
	server.put(t, configMaps, object(configMaps, "a", nil))
	m := newMember()
	start(t, server, Config{}, m)
	m.wait(t, "the other resources are there", func() bool { return m.begun["nodes"] == 1 && m.begun["pods"] == 1 })
	m.mu.Lock()
	if m.begun["configmaps"] != 0 {
		t.Error("a resource that was never listed was shown")
	}
	m.mu.Unlock()
	mu.Lock()
	broken = false
	mu.Unlock()
	m.wait(t, "the object is there", func() bool { return m.objects["configmaps"]["a"] != nil })
}

func TestAnAPIServerThatIsAwayMakesThePictureOldNotEmpty(t *testing.T) {
	server := newAPIServer(configMaps)
	server.put(t, configMaps, object(configMaps, "a", nil))
	m := newMember()
	r := start(t, server, Config{}, m)
	m.wait(t, "the object is there", func() bool { return m.objects["configmaps"]["a"] != nil })
	resource := r.ledger.listed()[0]
	if resource.Resource != "configmaps" {
		t.Fatalf("got %v", resource)
	}
	m.wait(t, "the age grows", func() bool {
		// Again: the watch may have begun, and been heard, only after the first time.
		r.ledger.heard(resource, errors.New("connection refused"))
		return m.ages["configmaps"] > 50
	})
	m.mu.Lock()
	if m.objects["configmaps"]["a"] == nil {
		t.Error("the object is gone")
	}
	m.mu.Unlock()
	r.ledger.heard(resource, nil)
	m.wait(t, "the age is 0 again", func() bool { return m.ages["configmaps"] == 0 })
}

func TestFactsCountNodesAndWhatPodsRequest(t *testing.T) {
	server := newAPIServer()
	server.put(t, nodesGVR, object(nodesGVR, "n1", map[string]any{"status": map[string]any{
		"allocatable": map[string]any{"cpu": "4", "memory": "8Gi"},
		"conditions":  []any{map[string]any{"type": "Ready", "status": "True"}}}}))
	server.put(t, nodesGVR, object(nodesGVR, "n2", map[string]any{"status": map[string]any{
		"allocatable": map[string]any{"cpu": "2500m", "memory": "1Gi"}}}))
	pod := func(name, node, phase string) *unstructured.Unstructured {
		return object(podsGVR, name, map[string]any{
			"spec": map[string]any{"nodeName": node, "containers": []any{map[string]any{"name": "c",
				"resources": map[string]any{"requests": map[string]any{"cpu": "100m", "memory": "64Mi"}}}}},
			"status": map[string]any{"phase": phase}})
	}
	server.put(t, podsGVR, pod("running", "n1", "Running"))
	server.put(t, podsGVR, pod("done", "n1", "Succeeded"))
	server.put(t, podsGVR, pod("waiting", "", "Pending"))
	m := newMember()
	start(t, server, Config{}, m)
	m.wait(t, "the facts are there", func() bool { return m.facts != nil })
	m.mu.Lock()
	got := []any{m.facts.Version, m.facts.Nodes, m.facts.ReadyNodes, m.facts.AllocatableCpu, m.facts.AllocatableMemory,
		m.facts.RequestedCpu, m.facts.RequestedMemory, len(m.facts.Resources)}
	m.mu.Unlock()
	want := []any{"v1.36.3", int32(2), int32(1), "6500m", "9Gi", "100m", "64Mi", 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	server.put(t, podsGVR, pod("running", "n1", "Failed"))
	m.wait(t, "the pod's requests are free", func() bool { return m.facts.RequestedCpu == "0" })
}

func TestASlowMemberIsGivenTheNewestStateAndHoldsUpNobody(t *testing.T) {
	server := newAPIServer(configMaps)
	slow, quick := newMember(), newMember()
	slow.gate = make(chan struct{})
	start(t, server, Config{KeepDeletes: 1, Batch: syncer.Limit{Objects: 2, Bytes: 1 << 20}}, slow, quick)
	t.Cleanup(func() { close(slow.gate) }) // before start's, which waits for the members
	has := func(m *member, i int) bool {
		o, ok := m.objects["configmaps"][fmt.Sprint("c", i%7)].(map[string]any)
		return ok && o["data"].(map[string]any)["i"] == fmt.Sprint(i)
	}
	for i := range 300 {
		server.put(t, configMaps, object(configMaps, fmt.Sprint("c", i%7), map[string]any{"data": map[string]any{"i": fmt.Sprint(i)}}))
		if i%50 == 49 { // the fake server's watch holds a hundred events and panics beyond
			quick.wait(t, fmt.Sprintf("the quick member has state %d", i), func() bool { return has(quick, i) })
		}
	}
	latest := func(m *member) bool { return has(m, 299) && len(m.objects["configmaps"]) == 7 }
	messages := 0
	for !func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return latest(slow) }() {
		slow.gate <- struct{}{}
		if messages++; messages > 40 {
			t.Fatal("the slow member was sent every state of every object")
		}
	}
}
