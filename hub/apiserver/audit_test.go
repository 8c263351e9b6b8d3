package apiserver

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/hub/api/audittrail"
)

// collector is where a webhook's events arrive.
type collector struct {
	mu   sync.Mutex
	text strings.Builder
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(body)
}

// kubeconfig of a webhook.
func (c *collector) kubeconfig(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(c)
	t.Cleanup(server.Close)
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	path := filepath.Join(t.TempDir(), "webhook.kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"a",
"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],"users":[{"name":"a","user":{}}],
"clusters":[{"name":"a","cluster":{"server":%q,"certificate-authority-data":%q}}]}`, server.URL, ca)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const hidden = "hidden-4be19c-in-no-audit"

// TestAuditReachesFileAndWebhookWithoutSecrets: what a Secret holds, and a token that
// was asked for, stand in neither.
func TestAuditReachesFileAndWebhookWithoutSecrets(t *testing.T) {
	webhook := &collector{}
	kubeconfig := webhook.kubeconfig(t)
	h := startHub(t, func(c *Config) { c.Audit.WebhookConfigFile = kubeconfig })
	token := h.writeSecrets(t)
	h.stop() // both sinks are flushed
	path := filepath.Join(h.dataDir, "audit", "audit.log")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for sink, got := range map[string]string{"the file": string(text), "the webhook": webhook.text.String()} {
		for _, verb := range []string{"create", "update", "patch"} {
			if !strings.Contains(got, `"verb":"`+verb+`","user":{"username":"auditee"`) {
				t.Errorf("%s was not told of the %s", sink, verb)
			}
		}
		for _, secret := range []string{hidden, base64.StdEncoding.EncodeToString([]byte(hidden)), token, strings.Split(token, ".")[2]} {
			if strings.Contains(got, secret) {
				t.Errorf("%s holds a secret", sink)
			}
		}
	}
	file := audittrail.File{Name: "audit.log", Open: func() (io.ReadCloser, error) { return os.Open(path) }}
	result, err := audittrail.Verify([]audittrail.File{file}, h.identity.EvidenceKey().Public().(ed25519.PublicKey), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Good() || !result.Trails[0].Ended {
		t.Errorf("the log of a server that stopped in order: %+v", result.Trails[0])
	}
}

// writeSecrets writes a Secret in every way, and returns a token of an account.
func (h *hub) writeSecrets(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	client := kubernetes.NewForConfigOrDie(h.as("auditee", "system:masters"))
	secrets := client.CoreV1().Secrets("default")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"password": hidden}}
	made, err := secrets.Create(ctx, secret, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"stringData": map[string]string{"other": hidden}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.Patch(ctx, "s", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "a", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}
