package apiserver

import (
	"context"
	"io"
	"net/http"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestEachKindOfTrafficHasItsFlow: what goes through the gateway, what agents ask, and
// what members ask.
func TestEachKindOfTrafficHasItsFlow(t *testing.T) {
	h := startHub(t, func(c *Config) {
		c.Hooks.RequestInfo = func(next request.RequestInfoResolver) request.RequestInfoResolver {
			return resolverFunc(func(r *http.Request) (*request.RequestInfo, error) {
				if r.URL.Path == "/through" {
					return &request.RequestInfo{IsResourceRequest: true, Verb: "get", APIGroup: "tripod.dev", APIVersion: "v1alpha1", Resource: "clusters", Subresource: "proxy", Name: "north-1"}, nil
				}
				return next.NewRequestInfo(r)
			})
		}
		// As the gateway does: what goes through is brief, unlike what upstream calls proxy.
		c.Hooks.LongRunning = func(next request.LongRunningRequestCheck) request.LongRunningRequestCheck {
			return func(r *http.Request, info *request.RequestInfo) bool {
				return r.URL.Path != "/through" && next(r, info)
			}
		}
	})
	api := kubernetes.NewForConfigOrDie(h.admin())
	_, err := api.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}, {Kind: "User", Name: "agent"}, {Kind: "User", Name: "member"}},
		RoleRef:  rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		as         *rest.Config
		path, want string
	}{
		"a person through the gateway": {h.as("ann"), "/through", FlowGateway},
		"a person at the hub's API":    {h.as("ann"), "/api/v1/namespaces", "global-default"},
		"an agent":                     {h.as("agent", groupAgents), "/api/v1/namespaces", FlowAgents},
		"a member":                     {h.as("member", groupMembers), "/api/v1/namespaces", FlowMembers},
	} {
		client, err := rest.HTTPClientFor(one.as)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" has its flow", func(ctx context.Context) string {
			schema, err := api.FlowcontrolV1().FlowSchemas().Get(ctx, one.want, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, one.as.Host+one.path, nil)
			if err != nil {
				return err.Error()
			}
			response, err := client.Do(r)
			if err != nil {
				return err.Error()
			}
			_, _ = io.Copy(io.Discard, response.Body) // the headers are what counts
			_ = response.Body.Close()
			if got := response.Header.Get("X-Kubernetes-Pf-Flowschema-Uid"); got != string(schema.UID) {
				return "flow schema " + got + ", want that of " + one.want + ", " + string(schema.UID)
			}
			return ""
		})
	}
}

// TestFlowsThatSomebodyOwnsAreLeftAlone by the next version.
func TestFlowsThatSomebodyOwnsAreLeftAlone(t *testing.T) {
	wanted := priorityLevels()[0]
	for name, one := range map[string]struct {
		annotations map[string]string
		updated     bool
	}{
		"ours":            {map[string]string{flowsUpdated: "true"}, true},
		"somebody's":      {map[string]string{flowsUpdated: "false"}, false},
		"without a word":  {nil, false},
		"of upstream's":   {map[string]string{"apf.kubernetes.io/autoupdate-spec": "true"}, false},
		"nobody's at all": {map[string]string{}, false},
	} {
		got := wanted.DeepCopy()
		got.Annotations = one.annotations
		client := &flowLog[*flowcontrolv1.PriorityLevelConfiguration]{}
		if err := ensureFlow(t.Context(), client, wanted, got, nil, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		if client.updated != one.updated || client.created {
			t.Errorf("%s: updated %v, created %v, want updated %v", name, client.updated, client.created, one.updated)
		}
	}
	client := &flowLog[*flowcontrolv1.PriorityLevelConfiguration]{}
	missing := apierrors.NewNotFound(flowcontrolv1.Resource("prioritylevelconfigurations"), wanted.Name)
	if err := ensureFlow(t.Context(), client, wanted, nil, missing, nil); err != nil || !client.created {
		t.Errorf("one that is missing: created %v, %v", client.created, err)
	}
}

type flowLog[T metav1.Object] struct{ created, updated bool }

func (l *flowLog[T]) Create(_ context.Context, o T, _ metav1.CreateOptions) (T, error) {
	l.created = true
	return o, nil
}

func (l *flowLog[T]) Update(_ context.Context, o T, _ metav1.UpdateOptions) (T, error) {
	l.updated = true
	return o, nil
}
