package access

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/hubprocess"
)

func TestMain(m *testing.M) {
	hubprocess.Be(hub.LoadConfig, hub.New, slog.LevelInfo)
	os.Exit(m.Run())
}

// running is a hub of one member, a process of its own.
type running struct {
	*hubprocess.Member
	admin  *rest.Config
	client client.Client
}

// startHub returns when the hub is ready; people are those of authentication.
func startHub(t *testing.T, authentication string) *running {
	t.Helper()
	member, err := hubprocess.Alone(t.TempDir(), "authenticationConfigFile: "+authentication)
	if err != nil {
		t.Fatal(err)
	}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		member.Stop()
		if t.Failed() {
			t.Logf("log of the hub:\n%s", member.Tail())
		}
	})
	h := &running{Member: member}
	eventually(t, "the hub is ready", func(ctx context.Context) (err error) {
		if h.admin, err = member.Ready(ctx); err != nil {
			return err
		}
		if h.client, err = newClient(h.admin); err != nil {
			return err
		}
		return h.client.List(ctx, &v1alpha1.ClusterList{})
	})
	return h
}

func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// joinToken accepts a cluster and makes a token for it.
func (h *running) joinToken(t *testing.T, name string) jointoken.Token {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.Data, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jointoken.New(name, ca)
	if err != nil {
		t.Fatal(err)
	}
	cluster := &v1alpha1.Cluster{}
	cluster.Name = name
	cluster.Spec = v1alpha1.ClusterSpec{Region: "r", Center: name, Admission: v1alpha1.AdmissionAccepted, Access: v1alpha1.ClusterAccess{Mode: v1alpha1.AccessTunnel}}
	for _, o := range []client.Object{cluster, token.NewSecret(time.Now().Add(time.Hour), false)} {
		if err := h.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	return token
}

func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	hubprocess.Eventually(t, 3*time.Minute, what, check)
}
