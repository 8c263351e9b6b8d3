package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/deploy/agent"
	"tripod.dev/tripod/hub/api/jointoken"
	memberagent "tripod.dev/tripod/member-agent"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// member is a cluster of one API server, with a real agent that has the rights of its
// manifest and no others.
type member struct {
	name   string
	admin  *rest.Config
	client client.Client
}

func joinMember(t *testing.T, h *running, name, authentication string, without ...string) *member {
	t.Helper()
	m := &member{name: name, admin: kubeapi.Start(t, "--authentication-config", authentication)}
	var err error
	if m.client, err = newClient(m.admin); err != nil {
		t.Fatal(err)
	}
	token := h.joinToken(t, name)
	m.install(t, token, without)
	m.runAgent(t, h, token)
	return m
}

// install applies what of the manifest an API server alone can hold.
func (m *member) install(t *testing.T, token jointoken.Token, without []string) {
	t.Helper()
	manifest, err := agent.Render(agent.Params{Cluster: m.name, Hub: []string{"127.0.0.1"}, Token: token.String(), Without: without})
	if err != nil {
		t.Fatal(err)
	}
	documents := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := documents.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := m.client.Create(t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// runAgent runs the agent as its service account.
func (m *member) runAgent(t *testing.T, h *running, token jointoken.Token) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	hour := int64(3600)
	review, err := kubernetes.NewForConfigOrDie(m.admin).CoreV1().ServiceAccounts(agent.Namespace).CreateToken(t.Context(), "tripod-agent",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	local := &rest.Config{Host: m.admin.Host, BearerToken: review.Status.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	a, err := memberagent.New(memberagent.Config{
		Cluster: m.name, Replica: m.name + "-0", Hub: []string{net.JoinHostPort(h.Address, "6444")}, JoinTokenFile: file,
		GuardListen: "127.0.0.1:0", RESTConfig: local, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent of %s: %v", m.name, err)
		}
	})
}

// impersonated counts the requests for people that the cluster has let the agent make,
// by how it judged them: constrained ("user-info") or as before Kubernetes 1.36
// ("legacy").
func (m *member) impersonated(t *testing.T, mode string) int {
	t.Helper()
	text, err := kubernetes.NewForConfigOrDie(m.admin).RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf(`apiserver_impersonation_attempts_total{decision="allowed",mode=%q} `, mode)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	return 0
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
