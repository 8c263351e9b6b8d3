package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

// judge is an authorizer that counts how often it was asked.
type judge struct {
	asked    int
	decision authorizer.Decision
	meet     func()
}

func (j *judge) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	j.asked++
	if j.meet != nil {
		j.meet()
	}
	return j.decision, fmt.Sprint("judged ", j.asked), nil
}

func toProxy(name string, groups ...string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name, Groups: groups}, Verb: "get", APIGroup: "tripod.dev", APIVersion: "v1alpha1",
		Resource: "clusters", Subresource: "proxy", Name: "north", ResourceRequest: true}
}

// TestARightIsRememberedUntilRulesChange and no longer than two seconds, and a refusal never.
func TestARightIsRememberedUntilRulesChange(t *testing.T) {
	rbac := &judge{decision: authorizer.DecisionAllow}
	now := time.Unix(1_800_000_000, 0)
	a := newAllowed(rbac)
	a.now = func() time.Time { return now }
	ask := func(what string, asked authorizer.AttributesRecord, wantDecision authorizer.Decision, wantAsked int) {
		t.Helper()
		decision, reason, err := a.Authorize(t.Context(), asked)
		if err != nil || decision != wantDecision || rbac.asked != wantAsked || decision == authorizer.DecisionAllow && reason == "" {
			t.Errorf("%s: %v %q %v, and RBAC was asked %d times; want %v, %d times", what, decision, reason, err, rbac.asked, wantDecision, wantAsked)
		}
	}
	allow, none := authorizer.DecisionAllow, authorizer.DecisionNoOpinion
	ann := toProxy("ann", "dev")
	ask("the first time", ann, allow, 1)
	now = now.Add(allowedFor - 1)
	ask("remembered", ann, allow, 1)
	now = now.Add(1)
	ask("after two seconds", ann, allow, 2)
	a.rules.Add(1)
	ask("after a change", ann, allow, 3)
	rbac.meet = func() { a.rules.Add(1) }
	a.rules.Add(1)
	ask("a change while RBAC is asked", ann, allow, 4)
	rbac.meet = nil
	ask("after it", ann, allow, 5)
	rbac.decision = none
	a.rules.Add(1)
	ask("taken away", ann, none, 6)
	ask("a refusal again", ann, none, 7)
	rbac.decision = allow
	ask("given", ann, allow, 8)

	asked := 8
	for what, change := range map[string]func(*authorizer.AttributesRecord){
		"another person": func(r *authorizer.AttributesRecord) { r.User = &user.DefaultInfo{Name: "bob", Groups: []string{"dev"}} },
		"another group":  func(r *authorizer.AttributesRecord) { r.User = &user.DefaultInfo{Name: "ann", Groups: []string{"ops"}} },
		"groups in one": func(r *authorizer.AttributesRecord) {
			r.User = &user.DefaultInfo{Name: "ann", Groups: []string{"3:dev"}}
		},
		"one more group": func(r *authorizer.AttributesRecord) {
			r.User = &user.DefaultInfo{Name: "ann", Groups: []string{"dev", "dev"}}
		},
		"no group":          func(r *authorizer.AttributesRecord) { r.User = &user.DefaultInfo{Name: "ann"} },
		"another verb":      func(r *authorizer.AttributesRecord) { r.Verb = "create" },
		"another resource":  func(r *authorizer.AttributesRecord) { r.Resource = "applications" },
		"a namespace":       func(r *authorizer.AttributesRecord) { r.Namespace = "n" },
		"another cluster":   func(r *authorizer.AttributesRecord) { r.Name = "south" },
		"no name":           func(r *authorizer.AttributesRecord) { r.Name = "" },
		"another's group":   func(r *authorizer.AttributesRecord) { r.APIGroup = "apps" },
		"not the gateway's": func(r *authorizer.AttributesRecord) { r.Subresource = "status" },
		"a path":            func(r *authorizer.AttributesRecord) { r.ResourceRequest, r.Path = false, "/clusters" },
	} {
		other := ann
		change(&other)
		asked++
		ask(what, other, allow, asked)
	}
	ask("ann still", ann, allow, asked)
}

func TestRightsThatAreRememberedAreBounded(t *testing.T) {
	a := newAllowed(&judge{decision: authorizer.DecisionAllow})
	for i := range 2*allowedMost + 10 {
		if _, _, err := a.Authorize(t.Context(), toProxy(fmt.Sprint("user-", i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.known) > allowedMost {
		t.Errorf("%d are remembered", len(a.known))
	}
}

// TestEveryKindOfRuleIsFollowed, as applications are judged in their namespaces.
func TestEveryKindOfRuleIsFollowed(t *testing.T) {
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	a := newAllowed(&judge{})
	if err := a.follow(factory); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	t.Cleanup(factory.Shutdown)
	name := metav1.ObjectMeta{Name: "one", Namespace: "n"}
	rbac := client.RbacV1()
	for what, change := range map[string]func() error{
		"a role": func() error {
			_, err := rbac.Roles("n").Create(t.Context(), &rbacv1.Role{ObjectMeta: name}, metav1.CreateOptions{})
			return err
		},
		"a binding": func() error {
			_, err := rbac.RoleBindings("n").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: name}, metav1.CreateOptions{})
			return err
		},
		"a cluster role": func() error {
			_, err := rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "one"}}, metav1.CreateOptions{})
			return err
		},
		"a cluster role binding": func() error {
			_, err := rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "one"}}, metav1.CreateOptions{})
			return err
		},
	} {
		before := a.rules.Load()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, what+" is heard of", func(context.Context) string {
			if a.rules.Load() == before {
				return "not heard of"
			}
			return ""
		})
	}
}

// TestARightThatIsTakenAwayIsForgotten in a whole server, by what it hears and not
// because it ends by itself.
func TestARightThatIsTakenAwayIsForgotten(t *testing.T) {
	p := newPassages(t)
	p.hub.server.chain.allowed.now = func() time.Time { return time.Unix(1_800_000_000, 0) } // nothing ends by itself
	r := p.request(t, "/clusters/north/api/v1/pods")
	code := func() int {
		w := httptest.NewRecorder()
		p.front.ServeHTTP(w, r.Clone(t.Context()))
		return w.Code
	}
	client, err := kubernetes.NewForConfig(p.hub.admin())
	if err != nil {
		t.Fatal(err)
	}
	role, err := client.RbacV1().ClusterRoles().Get(t.Context(), "passer", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rules := role.Rules
	for _, allow := range []bool{false, true} {
		role.Rules = nil
		want := http.StatusForbidden
		if allow {
			role.Rules, want = rules, http.StatusOK
		}
		if role, err = client.RbacV1().ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the role counts", func(context.Context) string {
			if got := code(); got != want {
				return fmt.Sprint(got)
			}
			return ""
		})
	}
	if err := client.RbacV1().ClusterRoleBindings().Delete(t.Context(), "passer", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the binding's end counts", func(context.Context) string {
		if got := code(); got != http.StatusForbidden {
			return fmt.Sprint(got)
		}
		return ""
	})
}
