package access

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/hub/api/jointoken"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// memberConfig makes the test binary a hub member instead of running tests.
const memberConfig = "ACCESS_MEMBER_CONFIG"

func TestMain(m *testing.M) {
	path := os.Getenv(memberConfig)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := beMember(path); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beMember(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := hub.LoadConfig(path)
	if err != nil {
		return err
	}
	member, err := hub.New(ctx, config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return member.Run(ctx)
}

// running is a hub of one member, a process of its own.
type running struct {
	address, data string
	admin         *rest.Config
	client        client.Client
}

// startHub returns when the hub is ready; people are those of authentication.
func startHub(t *testing.T, authentication string) *running {
	t.Helper()
	dir := t.TempDir()
	h := &running{address: fmt.Sprintf("127.%d.%d.2", 192+os.Getpid()%32, os.Getpid()/32%256), data: filepath.Join(dir, "data")}
	config, token := filepath.Join(dir, "hub.yaml"), filepath.Join(dir, "token")
	for path, text := range map[string]string{
		token: strings.Repeat("t", 32),
		config: fmt.Sprintf("name: hub-a\ndataDir: %s\nbootstrap: true\nhubTokenFile: %s\nauthenticationConfigFile: %s\nmembers:\n- {name: hub-a, region: r, center: c, address: %s}\n",
			h.data, token, authentication, h.address),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env, command.Stderr = append(os.Environ(), memberConfig+"="+config), log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(30*time.Second, func() { _ = command.Process.Kill() })
		_ = command.Wait()
		kill.Stop()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the hub:\n%s", text[max(0, len(text)-4000):])
		}
	})
	eventually(t, "the hub is ready", func(ctx context.Context) (err error) {
		if h.admin, err = clientcmd.BuildConfigFromFlags("", filepath.Join(h.data, "admin.kubeconfig")); err != nil {
			return err
		}
		h.admin.QPS = -1
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
	text, err := os.ReadFile(filepath.Join(h.data, "pki", "ca.crt"))
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

// eventually tries until it works; the machine may be busy.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: still %v", what, err)
		case <-tick.C:
		}
	}
}
