// Package access proves, with a real hub, real API servers and real agents, that who
// somebody is and what they may is the same whichever door they take.
package access

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/directory"
)

// authentication is what the hub and every cluster believe.
func authentication(t *testing.T, d *directory.Directory) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	text := fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [tripod]
    certificateAuthority: |
      %s
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
    groups: {claim: roles, prefix: "oidc:"}
`, d.URL, strings.ReplaceAll(strings.TrimSpace(string(d.CA)), "\n", "\n      "))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// person is somebody of the directory.
type person struct{ name, token string }

func newPerson(t *testing.T, d *directory.Directory, name string, groups ...string) person {
	now := time.Now()
	return person{name, d.Token(t, map[string]any{"iss": d.URL, "aud": "tripod", "sub": name, "roles": groups, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})}
}

// doors are the ways of a person to a cluster: straight, and through the gateway.
func (p person) doors(h *running, m *member) map[string]*rest.Config {
	gateway := rest.AnonymousClientConfig(h.admin)
	gateway.Host += "/clusters/" + m.name
	gateway.BearerToken, gateway.QPS = p.token, -1
	straight := rest.AnonymousClientConfig(m.admin)
	straight.BearerToken, straight.QPS = p.token, -1
	return map[string]*rest.Config{"straight": straight, "gateway": gateway}
}

// may asks an API server what it would say to whom it takes the caller for.
func may(ctx context.Context, config *rest.Config, verb, group, resource, namespace string) (string, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace}}}
	review, err := kubernetes.NewForConfigOrDie(config).AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return map[bool]string{true: "yes", false: "no"}[review.Status.Allowed], nil
}

// questions are what people are asked about; answers is a string of y and n.
var questions = []struct{ verb, group, resource, namespace string }{
	{"get", "", "nodes", ""},
	{"delete", "", "nodes", ""},
	{"patch", "apps", "deployments", "pay"},
	{"get", "", "secrets", "pay"},
	{"patch", "apps", "deployments", "kube-system"},
	{"escalate", "rbac.authorization.k8s.io", "clusterroles", ""},
}

// agree waits until every door of every cluster gives the person the same answers.
func agree(t *testing.T, h *running, members []*member, p person, want string) {
	t.Helper()
	for _, m := range members {
		for door, config := range p.doors(h, m) {
			eventually(t, fmt.Sprintf("%s at %s, %s, has %s", p.name, m.name, door, want), func(ctx context.Context) error {
				var got strings.Builder
				for _, q := range questions {
					answer, err := may(ctx, config, q.verb, q.group, q.resource, q.namespace)
					if err != nil {
						return err
					}
					got.WriteString(answer[:1])
				}
				if got.String() != want {
					return fmt.Errorf("it is %s", got.String())
				}
				return nil
			})
		}
	}
}

func TestTheGatewayAndADirectKubectlAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a hub and API servers")
	}
	d := directory.New(t)
	file := authentication(t, d)
	h := startHub(t, file)
	members := []*member{joinMember(t, h, "north-1", file), joinMember(t, h, "south-1", file)}
	ann, bob := newPerson(t, d, "ann", "sre"), newPerson(t, d, "bob", "dev")
	foreign := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "ops"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"get"}}}}
	if err := members[0].client.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	h.mapGroups(t)
	agree(t, h, members, ann, "ynynnn")
	agree(t, h, members, bob, "nnnnnn")

	t.Run("by the rights that remember whom the agent may be, and by no others", func(t *testing.T) {
		for _, m := range members {
			if constrained, legacy := m.impersonated(t, "user-info"), m.impersonated(t, "legacy"); constrained == 0 || legacy != 0 {
				t.Errorf("%s: %d people by the constrained way, %d by the old one", m.name, constrained, legacy)
			}
		}
	})
	t.Run("a role that the cluster had is not taken over", func(t *testing.T) {
		eventually(t, "the placement says so", func(ctx context.Context) error { return h.says(ctx, "not ours") })
		live := &rbacv1.ClusterRole{}
		if err := members[0].client.Get(t.Context(), client.ObjectKeyFromObject(foreign), live); err != nil || len(live.Rules) != 1 || live.Rules[0].Resources[0] != "events" {
			t.Errorf("the cluster's own role is now %+v, %v", live.Rules, err)
		}
	})
	t.Run("what somebody changes in a cluster is put right", func(t *testing.T) {
		live := &rbacv1.ClusterRole{}
		if err := members[1].client.Get(t.Context(), client.ObjectKey{Name: "sre-nodes"}, live); err != nil {
			t.Fatal(err)
		}
		live.Rules[0].Verbs = []string{"*"}
		if err := members[1].client.Update(t.Context(), live); err != nil {
			t.Fatal(err)
		}
		agree(t, h, members, ann, "ynynnn")
	})
	t.Run("a group of the hub gets what is taken away nowhere", func(t *testing.T) {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "sre-nodes"}}
		if err := h.client.Delete(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
		agree(t, h, members, ann, "nnynnn")
	})
	t.Run("the placements go, and the rights with them", func(t *testing.T) {
		for _, namespace := range []string{"pay", v1alpha1.NamespaceSystem} {
			if err := h.client.Delete(t.Context(), &v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "access", Namespace: namespace}}); err != nil {
				t.Fatal(err)
			}
		}
		agree(t, h, members, ann, "nnnnnn")
		for _, m := range members {
			eventually(t, "the role is gone from "+m.name, func(ctx context.Context) error {
				if err := m.client.Get(ctx, client.ObjectKey{Name: "sre-nodes"}, &rbacv1.ClusterRole{}); !apierrors.IsNotFound(err) {
					return fmt.Errorf("get: %w", err)
				}
				return nil
			})
		}
		if err := members[0].client.Get(t.Context(), client.ObjectKeyFromObject(foreign), &rbacv1.ClusterRole{}); err != nil {
			t.Errorf("the cluster's own role: %v", err)
		}
	})
}

// mapGroups gives the directory's group sre, in the hub and by placement in every
// cluster: get on nodes, and what edits deployments in namespace pay. In the hub alone
// everybody of the directory may go through the gateway.
func (h *running) mapGroups(t *testing.T) {
	t.Helper()
	sre := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "oidc:sre"}}
	placed := map[string]string{v1alpha1.LabelPlace: "true"}
	rbac := func(kind, name string) v1alpha1.ResourceSelector {
		return v1alpha1.ResourceSelector{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind, Name: name}
	}
	for _, o := range []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "through"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"clusters/proxy"}, Verbs: []string{"get", "create", "update", "patch", "delete"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "through"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "through"},
			Subjects: []rbacv1.Subject{sre[0], {APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "oidc:dev"}}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sre-nodes", Labels: placed}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "ops", Labels: placed}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "sre-nodes", Labels: placed}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "sre-nodes"}, Subjects: sre},
		namespace("pay"),
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "deployer", Namespace: "pay"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get", "patch"}}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "sre", Namespace: "pay"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "deployer"}, Subjects: sre},
		&v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "access", Namespace: "pay"}, Spec: v1alpha1.PlacementSpec{Resources: []v1alpha1.ResourceSelector{rbac("Role", "deployer"), rbac("RoleBinding", "sre")}}},
		namespace(v1alpha1.NamespaceSystem),
		&v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "access", Namespace: v1alpha1.NamespaceSystem}, Spec: v1alpha1.PlacementSpec{
			Resources: []v1alpha1.ResourceSelector{rbac("ClusterRole", "sre-nodes"), rbac("ClusterRoleBinding", "sre-nodes"), rbac("ClusterRole", "ops")}}},
	} {
		if err := h.client.Create(t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("%T %s: %v", o, o.GetName(), err)
		}
	}
}

// says fails unless the status of the placement of cluster roles has a failure with
// that text.
func (h *running) says(ctx context.Context, text string) error {
	p := &v1alpha1.Placement{}
	if err := h.client.Get(ctx, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: "access"}, p); err != nil {
		return err
	}
	for _, c := range p.Status.Clusters {
		if strings.Contains(strings.Join(c.Failures, " "), text) {
			return nil
		}
	}
	return fmt.Errorf("status %+v, %+v", p.Status.Clusters, meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionScheduled))
}
