package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"context"
)

// record is an audit backend in memory.
type record struct {
	mu     sync.Mutex
	events []*auditinternal.Event
}

func (r *record) ProcessEvents(events ...*auditinternal.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range events {
		r.events = append(r.events, event.DeepCopy())
	}
	return true
}
func (*record) Run(<-chan struct{}) error { return nil }
func (*record) Shutdown()                 {}
func (*record) String() string            { return "record" }

// completed are the events of requests that ended.
func (r *record) completed() []*auditinternal.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ended []*auditinternal.Event
	for _, event := range r.events {
		if event.Stage == auditinternal.StageResponseComplete {
			ended = append(ended, event)
		}
	}
	return ended
}

// chained is the member behind the filters of a real API server, in their order.
func chained(m *member, backend *record, allow func(authorizer.Attributes) bool) *httptest.Server {
	codecs := serializer.NewCodecFactory(runtime.NewScheme())
	factory := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	long := m.routes.LongRunning(genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward")))
	policy := auditpolicy.NewFakePolicyRuleEvaluator(auditinternal.LevelMetadata, nil)
	rbac := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if allow(a) {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "no rule", nil
	})
	handler := m.routes.Handler(http.NotFoundHandler())
	handler = genericapifilters.WithAuthorization(handler, rbac, codecs)
	handler = genericapifilters.WithAudit(handler, backend, policy, long)
	handler = genericapifilters.WithAuthentication(handler, authenticator.RequestFunc(
		func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: m.person}, true, nil
		}),
		genericapifilters.Unauthorized(codecs), nil, nil)
	handler = genericfilters.WithTimeoutForNonLongRunningRequests(handler, long)
	handler = genericapifilters.WithRequestDeadline(handler, backend, policy, long, codecs, patience)
	handler = genericapifilters.WithRequestInfo(handler, m.routes.RequestInfo(factory))
	handler = genericapifilters.WithRequestReceivedTimestamp(handler)
	handler = genericapifilters.WithAuditInit(handler)
	return httptest.NewServer(handler)
}

func TestThroughTheAPIServersFilters(t *testing.T) {
	m := newMember(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo(w, r)
			return
		}
		ok(w, r)
	})
	backend := &record{}
	m.door.Close()
	m.door = chained(m, backend, func(a authorizer.Attributes) bool {
		return a.GetResource() == "clusters" && a.GetSubresource() == "proxy" && a.GetName() == "north-1"
	})
	if response, body := m.do("GET", "/clusters/north-1/api/v1/pods", nil); response.StatusCode != 200 || body != "cluster" {
		t.Errorf("got %d %s", response.StatusCode, body)
	}
	if response, _ := m.do("GET", "/clusters/north-2/api/v1/pods", nil); response.StatusCode != http.StatusForbidden {
		t.Errorf("a cluster without a rule: got %d", response.StatusCode)
	}
	if got, want := m.last().Header.Get("Audit-Id"), string(backend.completed()[0].AuditID); got != want {
		t.Errorf("the cluster was given audit ID %q, want the hub's %q", got, want)
	}
	conn, reader, response := m.upgrade("SPDY/3.1", "/clusters/north-1/api/v1/namespaces/n/pods/p/exec")
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", response.StatusCode)
	}
	_, _ = io.WriteString(conn, "ls\n")
	if line, err := reader.ReadString('\n'); err != nil || line != "ls\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	_ = conn.Close()
	first := backend.completed()[0]
	got := []any{first.Verb, first.ObjectRef.Resource, first.ObjectRef.Subresource, first.ObjectRef.Name, first.User.Username, first.RequestURI,
		first.Annotations["gateway.tripod.dev/inner"], first.Annotations["gateway.tripod.dev/cluster"],
		first.Annotations["gateway.tripod.dev/as-user"], first.Annotations["gateway.tripod.dev/as-groups"], first.Annotations["gateway.tripod.dev/decision"]}
	want := []any{"get", "clusters", "proxy", "north-1", "ann", "/clusters/north-1/api/v1/pods", "list pods", "north-1",
		"ann", `["dev","system:authenticated"]`, "passed"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
