package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/registry/rbac/validation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/gateway"
	"tripod.dev/tripod/hub/view"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

var (
	triples = flag.Int("triples", 20_000, "how many random (user, rules, request) triples are compared")
	seed    = flag.Uint64("seed", 1, "of the triples")
)

// TestWhoMayAgreesWithRBAC compares what a request through the gateway and the view
// reaches, with Kubernetes' own RBAC authorizer in the chain, with what the rules say
// when they are read as people read them: a request to a cluster is the verb on
// clusters/proxy of that name; a read of the fleet is the same read of the hub, and
// shows the clusters that the person may get, in a list as in a get.
func TestWhoMayAgreesWithRBAC(t *testing.T) {
	w := newWorld(t)
	for i := range *triples {
		chance := rand.New(rand.NewPCG(*seed, uint64(i)))
		person, rules, asked := w.person(chance), w.rules(chance), w.request(chance)
		got, want := w.ask(t, person, rules, asked), rules.expect(person, asked)
		if got != want {
			t.Fatalf("triple %d of seed %d: %s %s by %+v with %s\nreached  %s\nexpected %s", i, *seed, asked.method, asked.path(), person, rules, got, want)
		}
		w.outcomes[strings.SplitN(got, " ", 2)[0]]++
	}
	t.Logf("%d triples: %v", *triples, w.outcomes)
	for _, outcome := range []string{"refused", "cluster", "list", "object", "nothing"} {
		if w.outcomes[outcome] < *triples/200 {
			t.Errorf("%d of %d triples end as %q: the test is blind there", w.outcomes[outcome], *triples, outcome)
		}
	}
}

var (
	worldClusters   = []string{"a", "b", "c"}
	worldNamespaces = []string{"n", "m"}
	worldUsers      = []string{"ann", "bob"}
	worldGroups     = []string{"dev", "ops"}
)

// asked is a request: to a cluster, or to the fleet for pods.
type asked struct {
	method, cluster, namespace, name string
	fleet                            bool
}

func (a asked) path() string {
	inner := "/api/v1"
	if a.namespace != "" {
		inner += "/namespaces/" + a.namespace
	}
	inner += "/pods"
	if a.name != "" {
		inner += "/" + a.name
	}
	if a.fleet {
		return "/fleet" + inner
	}
	return "/clusters/" + a.cluster + inner
}

// boundRule is one rule with whom it binds, in a namespace or, if that is empty, in all.
type boundRule struct {
	rbacv1.PolicyRule
	subject   rbacv1.Subject
	namespace string
}

type ruleBook []boundRule

func (b ruleBook) String() string {
	var all []string
	for _, r := range b {
		all = append(all, fmt.Sprintf("[%s %s in %q: %v of %v %v named %v]", r.subject.Kind, r.subject.Name, r.namespace, r.Verbs, r.APIGroups, r.Resources, r.ResourceNames))
	}
	return strings.Join(all, " ")
}

// allows reads the rules as people do; it shares no code with RBAC.
func (b ruleBook) allows(person user.Info, verb, group, resource, namespace, name string) bool {
	has := func(list []string, what ...string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return s == "*" || slices.Contains(what, s) })
	}
	_, subresource, _ := strings.Cut(resource, "/")
	for _, r := range b {
		bound := r.subject.Kind == "User" && r.subject.Name == person.GetName() ||
			r.subject.Kind == "Group" && slices.Contains(person.GetGroups(), r.subject.Name)
		inReach := r.namespace == "" || r.namespace == namespace
		named := len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, name)
		kinds := []string{resource}
		if subresource != "" {
			kinds = append(kinds, "*/"+subresource)
		}
		if bound && inReach && named && has(r.Verbs, verb) && has(r.APIGroups, group) && has(r.Resources, kinds...) {
			return true
		}
	}
	return false
}

var worldVerbs = map[string]string{"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

// expect is what a request is to reach.
func (b ruleBook) expect(person user.Info, a asked) string {
	if !a.fleet {
		if b.allows(person, worldVerbs[a.method], "tripod.dev", "clusters/proxy", "", a.cluster) {
			return "cluster " + a.cluster
		}
		return "refused"
	}
	verb := "list"
	if a.name != "" {
		verb = "get"
	}
	if !b.allows(person, verb, "", "pods", a.namespace, a.name) {
		return "refused"
	}
	var seen []string
	for _, c := range worldClusters {
		if b.allows(person, "get", "tripod.dev", "clusters", "", c) {
			seen = append(seen, c)
		}
	}
	if a.name != "" {
		if slices.Contains(seen, strings.TrimPrefix(a.name, "pod-")) {
			return "object " + a.name
		}
		return "nothing"
	}
	return fmt.Sprint("list ", seen)
}

// world is a gateway with a view of three clusters, each with a pod in each namespace.
type world struct {
	routes   *gateway.Routes
	dialed   string
	outcomes map[string]int
	handler  http.Handler
	rbac     authorizer.Authorizer
}

func (w *world) Dial(_ context.Context, cluster string) (net.Conn, error) {
	w.dialed = cluster
	return nil, errors.New("nobody is there")
}

func (w *world) Cluster(name string) (*v1alpha1.Cluster, bool) {
	return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterSpec{Admission: v1alpha1.AdmissionAccepted}}, true
}

func (w *world) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	return w.rbac.Authorize(ctx, a)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{outcomes: map[string]int{}}
	v, err := view.New(view.Config{})
	if err != nil {
		t.Fatal(err)
	}
	pods := &agentv1.SyncedResource{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Singular: "pod"}
	for _, cluster := range worldClusters {
		v.Facts(cluster, &agentv1.ClusterFacts{Resources: []*agentv1.SyncedResource{pods}})
		delta := &agentv1.ViewDelta{Resource: pods, SnapshotBegin: true, SnapshotEnd: true}
		for _, namespace := range worldNamespaces {
			object := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pod-%s","namespace":%q,"uid":"%s-%s","resourceVersion":"1"}}`, cluster, namespace, cluster, namespace)
			delta.Upserts = append(delta.Upserts, &agentv1.ViewObject{Object: []byte(object)})
		}
		v.Apply(cluster, "r", delta)
	}
	fleet, err := view.NewHandler(view.HandlerConfig{View: v, Authorizer: w})
	if err != nil {
		t.Fatal(err)
	}
	if w.routes, err = gateway.New(gateway.Config{Dialer: w, Clusters: w, Fleet: fleet, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	factory := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	w.handler = genericapifilters.WithAuthorization(w.routes.Handler(http.NotFoundHandler()), w, legacyscheme.Codecs)
	w.handler = genericapifilters.WithRequestInfo(w.handler, w.routes.RequestInfo(factory))
	return w
}

func (w *world) person(chance *rand.Rand) user.Info {
	person := &user.DefaultInfo{Name: pick(chance, worldUsers)}
	for _, group := range worldGroups {
		if chance.IntN(2) == 0 {
			person.Groups = append(person.Groups, group)
		}
	}
	return person
}

func pick(chance *rand.Rand, from []string) string { return from[chance.IntN(len(from))] }

func some(chance *rand.Rand, from []string) []string {
	var picked []string
	for range 1 + chance.IntN(2) {
		picked = append(picked, pick(chance, from))
	}
	return picked
}

func (w *world) rules(chance *rand.Rand) ruleBook {
	var book ruleBook
	for range 1 + chance.IntN(6) {
		r := boundRule{PolicyRule: rbacv1.PolicyRule{
			Verbs:     some(chance, []string{"get", "get", "list", "list", "watch", "create", "update", "patch", "delete", "*", "proxy"}),
			APIGroups: some(chance, []string{"", "tripod.dev", "tripod.dev", "*", "apps"}),
			Resources: some(chance, []string{"pods", "pods", "clusters", "clusters", "clusters/proxy", "clusters/status", "*/proxy", "*", "pods/log", "*/*"}),
		}, subject: rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: pick(chance, worldUsers)}}
		if chance.IntN(3) == 0 {
			r.ResourceNames = some(chance, []string{"a", "b", "c", "pod-a", "pod-b", ""})
		}
		if chance.IntN(2) == 0 {
			r.subject.Kind, r.subject.Name = "Group", pick(chance, worldGroups)
		}
		if chance.IntN(3) == 0 {
			r.namespace = pick(chance, worldNamespaces)
		}
		book = append(book, r)
	}
	if chance.IntN(2) == 0 { // else few see anything
		book = append(book, boundRule{PolicyRule: rbacv1.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{"", "tripod.dev"}, Resources: []string{"pods", "clusters"}},
			subject: rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: pick(chance, worldGroups)}})
	}
	return book
}

func (w *world) request(chance *rand.Rand) asked {
	a := asked{method: "GET", fleet: chance.IntN(2) == 0}
	if chance.IntN(3) > 0 {
		a.namespace = pick(chance, worldNamespaces)
	}
	if !a.fleet {
		a.method = pick(chance, slices.Sorted(maps.Keys(worldVerbs)))
		a.cluster = pick(chance, append([]string{"d"}, worldClusters...))
	}
	if a.namespace != "" && chance.IntN(2) == 0 {
		a.name = "pod-" + pick(chance, worldClusters)
	}
	return a
}

// authorizer is Kubernetes' own, with the book's rules.
func (b ruleBook) authorizer() authorizer.Authorizer {
	var roles []*rbacv1.Role
	var bindings []*rbacv1.RoleBinding
	var clusterRoles []*rbacv1.ClusterRole
	var clusterBindings []*rbacv1.ClusterRoleBinding
	for i, r := range b {
		meta := metav1.ObjectMeta{Name: fmt.Sprint("r", i), Namespace: r.namespace}
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name}
		if r.namespace == "" {
			clusterRoles = append(clusterRoles, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{r.PolicyRule}})
			clusterBindings = append(clusterBindings, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: []rbacv1.Subject{r.subject}})
			continue
		}
		ref.Kind = "Role"
		roles = append(roles, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{r.PolicyRule}})
		bindings = append(bindings, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: []rbacv1.Subject{r.subject}})
	}
	_, static := validation.NewTestRuleResolver(roles, bindings, clusterRoles, clusterBindings)
	return rbac.New(static, static, static, static)
}

// ask sends the request through the chain and says what it reached.
func (w *world) ask(t *testing.T, person user.Info, rules ruleBook, a asked) string {
	t.Helper()
	w.rbac, w.dialed = rules.authorizer(), ""
	r := httptest.NewRequest(a.method, a.path(), nil)
	r.Header.Set("Accept", "application/json")
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, r.WithContext(request.WithUser(r.Context(), person)))
	if !a.fleet {
		if (answer.Code == http.StatusForbidden) != (w.dialed == "") {
			t.Fatalf("%s %s: %d, and %q was dialed", a.method, a.path(), answer.Code, w.dialed)
		}
		if w.dialed == "" {
			return "refused"
		}
		return "cluster " + w.dialed
	}
	switch answer.Code {
	case http.StatusForbidden:
		return "refused"
	case http.StatusNotFound:
		return "nothing"
	case http.StatusOK:
	default:
		t.Fatalf("%s %s: %d %s", a.method, a.path(), answer.Code, answer.Body)
	}
	var got struct {
		Metadata metav1.ObjectMeta
		Items    []struct{ Metadata metav1.ObjectMeta }
	}
	body, err := io.ReadAll(answer.Body)
	if err == nil {
		err = json.Unmarshal(body, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if a.name != "" {
		return "object " + got.Metadata.Name
	}
	seen := sets.New[string]()
	for _, item := range got.Items {
		seen.Insert(item.Metadata.Annotations[view.ClusterName])
		if a.namespace != "" && item.Metadata.Namespace != a.namespace {
			t.Fatalf("%s: an item of namespace %s", a.path(), item.Metadata.Namespace)
		}
	}
	return fmt.Sprint("list ", sets.List(seen))
}
