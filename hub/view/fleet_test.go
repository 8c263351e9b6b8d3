package view

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	testclock "k8s.io/utils/clock/testing"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
	syncview "tripod.dev/tripod/syncer/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	podResource = syncer.Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "pods"},
		Kind: "Pod", Singular: "pod", Namespaced: true, ShortNames: []string{"po"}, Categories: []string{"all"}}
	nodeResource = syncer.Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"},
		Kind: "Node", Singular: "node"}
	widgetResource = syncer.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.test", Version: "v1", Resource: "widgets"},
		Kind: "Widget", Singular: "widget", Namespaced: true}
	definitionResource = syncer.Resource{GroupVersionResource: definitions, Kind: "CustomResourceDefinition"}
)

// agent is the reporting side of one cluster.
type agent struct {
	t        interface{ Fatal(...any) }
	view     *View
	name     string
	session  int
	journals map[schema.GroupVersionResource]*syncer.Journal
	cursors  map[schema.GroupVersionResource]syncer.Cursor
	held     []syncer.Resource
	version  int
	limit    syncer.Limit
}

func newAgent(t interface{ Fatal(...any) }, v *View, name string, resources ...syncer.Resource) *agent {
	a := &agent{t: t, view: v, name: name, journals: map[schema.GroupVersionResource]*syncer.Journal{},
		cursors: map[schema.GroupVersionResource]syncer.Cursor{}, held: resources, limit: syncer.Limit{Objects: 3, Bytes: 1 << 20}}
	for _, r := range resources {
		a.journals[r.GroupVersionResource] = syncer.NewJournal(2)
	}
	a.connect()
	return a
}

func (a *agent) replica() string { return fmt.Sprint("agent/", a.session) }

func (a *agent) connect() {
	a.session++
	clear(a.cursors)
	facts := &agentv1.ClusterFacts{Version: "v1.36.3"}
	for _, r := range a.held {
		facts.Resources = append(facts.Resources, syncview.EncodeResource(r))
	}
	a.view.Facts(a.name, facts)
}

func (a *agent) disconnect() { a.view.Disconnected(a.name, a.replica()) }

// put writes an object in the cluster; fields override the top level.
func (a *agent) put(r syncer.Resource, namespace, name string, labels map[string]string, fields map[string]any) {
	a.version++
	metadata := map[string]any{"name": name, "uid": a.name + name, "resourceVersion": fmt.Sprint(a.version),
		"generation": 12345678901, "creationTimestamp": "2026-11-20T00:00:00Z"}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	if labels != nil {
		metadata["labels"] = labels
	}
	object := map[string]any{"apiVersion": r.GroupVersion().String(), "kind": r.Kind, "metadata": metadata}
	for field, value := range fields {
		object[field] = value
	}
	raw, err := json.Marshal(object)
	if err != nil {
		a.t.Fatal(err)
	}
	a.journals[r.GroupVersionResource].Upsert(syncer.Object{Key: syncer.Key{Namespace: namespace, Name: name}, Version: fmt.Sprint(a.version), JSON: raw})
}

func (a *agent) remove(r syncer.Resource, namespace, name string) {
	a.journals[r.GroupVersionResource].Delete(syncer.Key{Namespace: namespace, Name: name})
}

// step sends one batch of a resource; false when there was nothing to send.
func (a *agent) step(r syncer.Resource) bool {
	gvr := r.GroupVersionResource
	next, moved, err := syncer.Step(a.journals[gvr], a.cursors[gvr], a.limit, wire{a, r})
	if err != nil {
		a.t.Fatal(err)
	}
	a.cursors[gvr] = next
	return moved
}

func (a *agent) sync() {
	for _, r := range a.held {
		for a.step(r) {
		}
	}
}

// wire passes batches through the protocol's bytes.
type wire struct {
	agent    *agent
	resource syncer.Resource
}

func (w wire) Put(batch syncer.Batch) error {
	encoded, err := proto.Marshal(syncview.Encode(w.resource, batch, 0))
	if err != nil {
		return err
	}
	var delta agentv1.ViewDelta
	if err := proto.Unmarshal(encoded, &delta); err != nil {
		return err
	}
	w.agent.view.Apply(w.agent.name, w.agent.replica(), &delta)
	return nil
}

// rights says what the person may not do.
type rights struct {
	mu     sync.Mutex
	denied sets.Set[string]
}

func (r *rights) deny(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied.Insert(what)
}

// Authorize implements authorizer.Authorizer: "clusters/NAME" or "RESOURCE".
func (r *rights) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := a.GetResource()
	if a.GetAPIGroup() == "tripod.dev" && a.GetVerb() == "get" {
		what += "/" + a.GetName()
	}
	if r.denied.Has(what) {
		return authorizer.DecisionDeny, "", nil
	}
	return authorizer.DecisionAllow, "", nil
}

// fleet is a view and a server of it.
type fleet struct {
	*View
	t      *testing.T
	rights *rights
	clock  *testclock.FakeClock
	server *httptest.Server
	config HandlerConfig
}

const startVersion = 2_000_000_000_000_000_000

func newFleet(t *testing.T, config Config) *fleet {
	t.Helper()
	f := &fleet{t: t, rights: &rights{denied: sets.New[string]()}}
	f.clock = testclock.NewFakeClock(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	config.Clock, config.Start = f.clock, startVersion
	v, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	f.View = v
	f.config = HandlerConfig{View: v, Authorizer: f.rights, Clock: f.clock}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	return f
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := resolver.NewRequestInfo(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	handler, err := NewHandler(f.config)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "ann"})
	handler.ServeHTTP(w, r.WithContext(ctx))
}

func (f *fleet) client() dynamic.Interface {
	f.t.Helper()
	client, err := dynamic.NewForConfig(&rest.Config{Host: f.server.URL, WarningHandler: rest.NoWarnings{}, QPS: -1})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.server.Client().CloseIdleConnections)
	return client
}

// fetch answers with the status code, the headers and the decoded body.
func (f *fleet) fetch(path, accept string) (int, http.Header, map[string]any) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.server.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	response, err := f.server.Client().Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(body, &decoded); err != nil {
		f.t.Fatalf("%s: %v: %s", path, err, body)
	}
	return response.StatusCode, response.Header, decoded
}

// names are "cluster/namespace/name" of a list's items, in its order.
func names(list map[string]any) []string {
	found := []string{}
	items, _ := list["items"].([]any)
	for _, item := range items {
		metadata := item.(map[string]any)["metadata"].(map[string]any)
		namespace, _ := metadata["namespace"].(string)
		found = append(found, fmt.Sprintf("%s/%s/%s", metadata["annotations"].(map[string]any)[ClusterName], namespace, metadata["name"]))
	}
	return found
}
