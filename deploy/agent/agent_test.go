package agent

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

var token = "north-1.abcdef.0123456789abcdef." + strings.Repeat("ab", 32)

// decode reads the documents strictly: an unknown or repeated field is an error.
func decode(t *testing.T, manifest []byte) []runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Strict: true})
	reader := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	var objects []runtime.Object
	for {
		var raw runtime.RawExtension
		err := reader.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := strict.Decode(raw.Raw, nil, nil)
		if err != nil {
			t.Fatalf("%v in %s", err, raw.Raw)
		}
		objects = append(objects, object)
	}
}

func TestTheManifestIsWhatKubernetesReads(t *testing.T) {
	manifest, err := Render(Params{Cluster: "north-1", Hub: []string{"10.0.0.1", "hub-b.example:16444", "fd00::3"}, Token: token + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, object := range decode(t, manifest) {
		kinds[object.GetObjectKind().GroupVersionKind().Kind]++
		switch o := object.(type) {
		case *corev1.Secret:
			if got := string(o.Data["token"]); got != token {
				t.Errorf("the token is %q", got)
			}
		case *appsv1.Deployment:
			want := []string{"--cluster=north-1", "--hub=10.0.0.1:6444,hub-b.example:16444,[fd00::3]:6444", "--join-token-file=/etc/tripod/join/token", "--log-level=info"}
			if diff := cmp.Diff(want, o.Spec.Template.Spec.Containers[0].Args); diff != "" {
				t.Error(diff)
			}
			if *o.Spec.Replicas != 2 || o.Spec.Template.Spec.Containers[0].Image != DefaultImage {
				t.Errorf("got %d replicas of %s", *o.Spec.Replicas, o.Spec.Template.Spec.Containers[0].Image)
			}
		case *rbacv1.ClusterRole:
			for _, rule := range o.Rules {
				for _, verb := range rule.Verbs {
					if verb == "*" {
						t.Errorf("ClusterRole %s has every verb on %v", o.Name, rule.Resources)
					}
				}
			}
		}
	}
	want := map[string]int{"Namespace": 1, "ServiceAccount": 1, "ClusterRole": 7, "ClusterRoleBinding": 7, "Role": 1, "RoleBinding": 1, "Secret": 1, "Service": 2, "PodDisruptionBudget": 1, "Deployment": 1}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
}

// TestTheAgentHasTheRightsOfItsFeatures: one that only shows its cluster may
// neither change it nor be anybody.
func TestTheAgentHasTheRightsOfItsFeatures(t *testing.T) {
	constrained := []string{"impersonate:user-info", "impersonate-on:user-info:get", "impersonate-on:user-info:list", "impersonate-on:user-info:watch", "impersonate-on:user-info:create",
		"impersonate-on:user-info:update", "impersonate-on:user-info:patch", "impersonate-on:user-info:delete", "impersonate-on:user-info:deletecollection"}
	constrained = slices.Clip(constrained)
	for name, tc := range map[string]struct {
		without []string
		verbs   []string // that the agent has in the whole cluster
	}{
		"everything":        {nil, slices.Sorted(slices.Values(append(constrained, "bind", "create", "delete", "escalate", "get", "impersonate", "list", "patch", "update", "watch")))},
		"without a gateway": {[]string{"gateway"}, []string{"bind", "create", "delete", "escalate", "get", "list", "patch", "update", "watch"}},
		"without roles":     {[]string{"roles"}, slices.Sorted(slices.Values(append(constrained, "create", "delete", "get", "impersonate", "list", "patch", "update", "watch")))},
		"only the view":     {Features, []string{"get", "list", "watch"}},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, err := Render(Params{Cluster: "north-1", Hub: []string{"10.0.0.1"}, Token: token, Without: tc.without})
			if err != nil {
				t.Fatal(err)
			}
			roles, bound, verbs := map[string]bool{}, map[string]bool{}, map[string]bool{}
			for _, object := range decode(t, manifest) {
				switch o := object.(type) {
				case *rbacv1.ClusterRole:
					roles[o.Name] = true
					for _, rule := range o.Rules {
						for _, verb := range rule.Verbs {
							verbs[verb] = true
						}
					}
				case *rbacv1.ClusterRoleBinding:
					bound[o.RoleRef.Name] = true
				}
			}
			if diff := cmp.Diff(roles, bound); diff != "" {
				t.Errorf("roles and what is bound:\n%s", diff)
			}
			if diff := cmp.Diff(tc.verbs, slices.Sorted(maps.Keys(verbs))); diff != "" {
				t.Errorf("verbs (-want +got):\n%s", diff)
			}
			if roles["cluster-admin"] {
				t.Error("the agent is bound to cluster-admin")
			}
		})
	}
}

// TestModeDirectIsForTheGatewayAlone: the hub's members get no other right.
func TestModeDirectIsForTheGatewayAlone(t *testing.T) {
	for _, direct := range []bool{false, true} {
		manifest, err := Render(Params{Cluster: "north-1", Hub: []string{"10.0.0.1"}, Token: token, Direct: direct})
		if err != nil {
			t.Fatal(err)
		}
		var members []string
		for _, object := range decode(t, manifest) {
			binding, ok := object.(*rbacv1.ClusterRoleBinding)
			if ok && slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Kind == rbacv1.GroupKind && s.Name == "tripod:members" }) {
				members = append(members, binding.RoleRef.Name)
			}
		}
		want := []string{"tripod-agent-gateway"}
		if !direct {
			want = nil
		}
		if diff := cmp.Diff(want, members); diff != "" {
			t.Errorf("direct %v: what the hub's members are bound to (-want +got):\n%s", direct, diff)
		}
	}
	if role, binding, err := Role("gateway"); err != nil || role.Name != binding.RoleRef.Name || len(role.Rules) == 0 {
		t.Errorf("the role alone: %+v %+v %v", role, binding, err)
	}
	if _, _, err := Role("gate"); err == nil || !strings.Contains(err.Error(), "there are datasets") {
		t.Errorf("an unknown feature: %v", err)
	}
}

func TestBadParamsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		params Params
		want   string
	}{
		"a token of another cluster":          {Params{Cluster: "north-2", Hub: []string{"a"}, Token: token}, `for cluster "north-1", this is "north-2"`},
		"mode Direct without the gateway":     {Params{Cluster: "north-1", Hub: []string{"a"}, Token: token, Direct: true, Without: []string{"gateway"}}, "give one of the two"},
		"half a token":                        {Params{Cluster: "north-1", Hub: []string{"a"}, Token: "north-1.abcdef"}, "malformed"},
		"a feature that is none":              {Params{Cluster: "north-1", Hub: []string{"a"}, Token: token, Without: []string{"x"}}, `no feature "x"`},
		"no hub":                              {Params{Cluster: "north-1", Token: token}, "no hub member"},
		"a name that would break out of YAML": {Params{Cluster: "x: {}", Hub: []string{"a"}, Token: token}, "join token"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Render(tc.params); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
