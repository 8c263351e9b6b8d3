package apiserver

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/http"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/denial"
)

// keeper keeps how to judge the requests to /hold again, by who made them.
type keeper struct {
	mu   sync.Mutex
	kept map[string]*Again
}

func (k *keeper) hook(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.URL.Query().Get("name"); r.URL.Path == "/hold" {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.kept[name] = AgainOf(r.Context())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hold makes a request that is allowed and returns how to judge it again.
func (k *keeper) hold(t *testing.T, name string, config *rest.Config) *Again {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(config)
	eventually(t, name+" is let in", func(ctx context.Context) string {
		if err := client.RESTClient().Get().AbsPath("/hold").Param("name", name).Do(ctx).Error(); err != nil {
			return err.Error()
		}
		return ""
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.kept[name].Allowed(t.Context()) {
		t.Fatalf("%s is refused when asked again at once", name)
	}
	return k.kept[name]
}

// TestWhatWasAllowedIsJudgedAgain: by everything that it was judged by.
func TestWhatWasAllowedIsJudgedAgain(t *testing.T) {
	k := &keeper{kept: map[string]*Again{}}
	h := startHub(t, func(c *Config) { c.Hooks.Handler = k.hook })
	api := kubernetes.NewForConfigOrDie(h.admin())
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	roles, bindings := api.RbacV1().ClusterRoles(), api.RbacV1().ClusterRoleBindings()
	must(roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "hold"}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/hold"}, Verbs: []string{"get"}}}}, metav1.CreateOptions{}))
	must(roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "as-bob"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"bob"}, Verbs: []string{"impersonate"}}}}, metav1.CreateOptions{}))
	bind := func(role string, subject rbacv1.Subject) {
		t.Helper()
		must(bindings.Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role + "-" + subject.Name}, Subjects: []rbacv1.Subject{subject}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}}, metav1.CreateOptions{}))
	}
	person := func(name string) rbacv1.Subject { return rbacv1.Subject{Kind: "User", Name: name} }
	for _, name := range []string{"ann", "bob", "cat", "dan", "eve"} {
		bind("hold", person(name))
	}
	bind("as-bob", person("ann"))
	h.namespace(t, "robots")
	must(api.CoreV1().ServiceAccounts("robots").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "r2"}}, metav1.CreateOptions{}))
	bind("hold", rbacv1.Subject{Kind: "ServiceAccount", Namespace: "robots", Name: "r2"})
	token, err := api.CoreV1().ServiceAccounts("robots").CreateToken(t.Context(), "r2", tokenRequest(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	impersonating := h.as("ann")
	impersonating.Impersonate.UserName = "bob"
	robot := &rest.Config{Host: "https://" + h.server.Address(), BearerToken: token.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.PEM()}}

	unbound, asBob, denied, deleted, staying := k.hold(t, "ann", h.as("ann")), k.hold(t, "ann as bob", impersonating), k.hold(t, "dan", h.as("dan")), k.hold(t, "robot", robot), k.hold(t, "eve", h.as("eve"))
	expiring := k.hold(t, "cat", h.shortLived(t, "cat"))

	must(nil, bindings.Delete(t.Context(), "as-bob-ann", metav1.DeleteOptions{}))
	refused(t, "impersonation, without the right to it", asBob)
	must(nil, bindings.Delete(t.Context(), "hold-ann", metav1.DeleteOptions{}))
	refused(t, "a person without the binding", unbound)
	must(nil, api.CoreV1().ServiceAccounts("robots").Delete(t.Context(), "r2", metav1.DeleteOptions{}))
	refused(t, "a service account that is gone", deleted)
	must(api.CoreV1().Secrets(denial.Namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: denial.Namespace, Name: denial.Name},
		StringData: map[string]string{denial.Key: denial.Line("dan", "")}}, metav1.CreateOptions{}))
	refused(t, "a denied person", denied)
	refused(t, "a certificate whose time is over", expiring)
	if !staying.Allowed(t.Context()) {
		t.Error("who lost nothing is refused")
	}
}

func refused(t *testing.T, what string, again *Again) {
	t.Helper()
	eventually(t, what+" is refused", func(ctx context.Context) string {
		if again.Allowed(ctx) {
			return "allowed"
		}
		return ""
	})
}

// shortLived is a client configuration with a certificate of a few seconds.
func (h *hub) shortLived(t *testing.T, name string) *rest.Config {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(8 * time.Second), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := h.authority.Sign(template, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return h.withCertificate(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key)
}
