package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/test/multikind/kubeapi"
)

func clusterRole(name string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func ruleOf(group, resource string, names []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names, Verbs: verbs}
}

func subjects(kind string, names ...string) (all []rbacv1.Subject) {
	for _, name := range names {
		s := rbacv1.Subject{Kind: kind, APIGroup: "rbac.authorization.k8s.io", Name: name}
		if kind == rbacv1.ServiceAccountKind {
			s.APIGroup, s.Namespace = "", "pay"
		}
		all = append(all, s)
	}
	return all
}

// someRights have each way in which a rule can fit or not.
func someRights() rights {
	toRole := func(kind, name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: kind, Name: name}
	}
	return rights{
		place: "the hub",
		clusterRoles: []rbacv1.ClusterRole{
			clusterRole("t-read", ruleOf("", "pods", nil, "get", "list")),
			clusterRole("t-logs", ruleOf("", "*/log", nil, "get")),
			clusterRole("t-all-apps", ruleOf("apps", "*", nil, "*")),
			clusterRole("t-one", ruleOf("*", "configmaps", []string{"one"}, "update", "get")),
			clusterRole("t-pass", ruleOf("tripod.dev", "clusters/proxy", []string{"north-1"}, "get")),
		},
		clusterRoleBindings: []rbacv1.ClusterRoleBinding{
			{ObjectMeta: metav1.ObjectMeta{Name: "t-read"}, Subjects: subjects("Group", "sre"), RoleRef: toRole("ClusterRole", "t-read")},
			{ObjectMeta: metav1.ObjectMeta{Name: "t-logs"}, Subjects: subjects("User", "ann"), RoleRef: toRole("ClusterRole", "t-logs")},
			{ObjectMeta: metav1.ObjectMeta{Name: "t-one"}, Subjects: subjects("User", "bob"), RoleRef: toRole("ClusterRole", "t-one")},
			{ObjectMeta: metav1.ObjectMeta{Name: "t-pass"}, Subjects: subjects("Group", "sre"), RoleRef: toRole("ClusterRole", "t-pass")},
			{ObjectMeta: metav1.ObjectMeta{Name: "t-gone"}, Subjects: subjects("User", "ann"), RoleRef: toRole("ClusterRole", "t-gone")},
		},
		roles: []rbacv1.Role{{ObjectMeta: metav1.ObjectMeta{Name: "t-secrets", Namespace: "pay"}, Rules: []rbacv1.PolicyRule{ruleOf("", "secrets", nil, "get")}}},
		roleBindings: []rbacv1.RoleBinding{
			{ObjectMeta: metav1.ObjectMeta{Name: "t-apps", Namespace: "pay"}, Subjects: subjects("ServiceAccount", "robot"), RoleRef: toRole("ClusterRole", "t-all-apps")},
			{ObjectMeta: metav1.ObjectMeta{Name: "t-secrets", Namespace: "pay"}, Subjects: subjects("Group", "system:serviceaccounts:pay"), RoleRef: toRole("Role", "t-secrets")},
		},
	}
}

// TestAccessSaysWhatAnAPIServerSays: for every question of a grid, on the RBAC of
// a real API server.
func TestAccessSaysWhatAnAPIServerSays(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	client := kubernetes.NewForConfigOrDie(kubeapi.Start(t))
	given := someRights()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "pay"}}, metav1.CreateOptions{}))
	for i := range given.clusterRoles {
		must(client.RbacV1().ClusterRoles().Create(t.Context(), &given.clusterRoles[i], metav1.CreateOptions{}))
	}
	for i := range given.clusterRoleBindings {
		must(client.RbacV1().ClusterRoleBindings().Create(t.Context(), &given.clusterRoleBindings[i], metav1.CreateOptions{}))
	}
	must(client.RbacV1().Roles("pay").Create(t.Context(), &given.roles[0], metav1.CreateOptions{}))
	for i := range given.roleBindings {
		must(client.RbacV1().RoleBindings("pay").Create(t.Context(), &given.roleBindings[i], metav1.CreateOptions{}))
	}
	robot := who{user: "system:serviceaccount:pay:robot", groups: []string{"system:serviceaccounts", "system:serviceaccounts:pay"}}
	review := func(person who, a asked) bool {
		answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: person.user, Groups: append([]string{"system:authenticated"}, person.groups...),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: a.verb, Group: a.group, Resource: a.resource, Subresource: a.subresource, Namespace: a.namespace, Name: a.name},
		}}, metav1.CreateOptions{})
		must(answer, err)
		return answer.Status.Allowed
	}
	awaitTrue(t, func() bool { return review(robot, asked{verb: "get", resource: "secrets", namespace: "pay"}) })
	found := listed(t, client)
	questions, yes := 0, 0
	for _, person := range []who{{user: "ann"}, {user: "bob"}, {user: "cat", groups: []string{"sre"}}, robot, {user: "root", groups: []string{"system:masters"}}} {
		for _, verb := range []string{"get", "list", "update", "*"} {
			for _, resource := range []asked{{resource: "pods"}, {resource: "pods", subresource: "log"}, {resource: "secrets"}, {group: "apps", resource: "deployments", subresource: "scale"},
				{resource: "configmaps"}, {group: "x.test", resource: "configmaps"}, {group: "tripod.dev", resource: "clusters", subresource: "proxy"}} {
				for _, namespace := range []string{"", "pay", "other"} {
					for _, name := range []string{"", "one", "north-1"} {
						a := resource
						a.verb, a.namespace, a.name = verb, namespace, name
						got, want := len(found.explain(person, a)) > 0, review(person, a)
						if got != want {
							t.Errorf("%+v %s: says %v, the API server %v", person, a, got, want)
						}
						questions++
						if want {
							yes++
						}
					}
				}
			}
		}
	}
	t.Logf("%d questions, %d answered with yes", questions, yes)
}

func listed(t *testing.T, client kubernetes.Interface) (found rights) {
	t.Helper()
	found, err := readRights(t.Context(), client, "the cluster")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func awaitTrue(t *testing.T, check func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-ctx.Done():
			t.Fatal("not in a minute")
		case <-tick.C:
		}
	}
}

func TestAccessSaysWhereARequestIsStopped(t *testing.T) {
	hub, north := someRights(), someRights()
	north.place = "cluster north-1"
	pass := asked{verb: "get", group: "tripod.dev", resource: "clusters", subresource: "proxy", name: "north-1"}
	cat := who{user: "cat", groups: []string{"sre"}}
	for name, test := range map[string]struct {
		person  who
		inner   asked
		allowed bool
		text    []string
	}{
		"both let a person through": {cat, asked{verb: "list", resource: "pods"}, true, []string{
			"yes  in the hub: get clusters/proxy.tripod.dev north-1", "group sre: ClusterRoleBinding t-pass gives it ClusterRole t-pass, whose rule 1 is get on clusters/proxy of \"tripod.dev\" named north-1",
			"yes  in cluster north-1: list pods"}},
		"the cluster does not": {cat, asked{verb: "delete", resource: "pods"}, false, []string{"yes  in the hub", "no   in cluster north-1: delete pods", "of the groups sre"}},
		"the hub does not":     {who{user: "ann"}, asked{verb: "get", resource: "pods", subresource: "log"}, false, []string{"no   in the hub", "yes  in cluster north-1"}},
	} {
		var out bytes.Buffer
		if got := writeExplanation(&out, []stage{{hub, pass}, {north, test.inner}}, test.person); got != test.allowed {
			t.Errorf("%s: %v", name, got)
		}
		for _, text := range test.text {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: %q is not in\n%s", name, text, out.String())
			}
		}
	}
	var out bytes.Buffer
	writeWhoCan(&out, []stage{{hub, pass}, {north, asked{verb: "get", resource: "secrets", namespace: "pay"}}})
	for _, text := range []string{"in the hub: get clusters/proxy.tripod.dev north-1\n  group sre: ", "  group system:serviceaccounts:pay: RoleBinding pay/t-secrets gives it Role pay/t-secrets", "needs both"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not in\n%s", text, out.String())
		}
	}
	for verb, want := range map[string]string{"watch": "get", "deletecollection": "delete", "patch": "patch"} {
		if got := passVerb(verb, ""); got != want {
			t.Errorf("%s passes as %s, want %s", verb, got, want)
		}
	}
	if got := passVerb("get", "exec"); got != "create" {
		t.Errorf("exec passes as %s", got)
	}
}
