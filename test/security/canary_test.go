package security

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub"
	"tripod.dev/tripod/member-agent/tunnel"
)

// output collects what an agent says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// TestSecretsAreInNoOutput sends canaries in every place where a secret travels, also
// in requests that fail, through the API and through a tunnel to a cluster; and looks
// for them in the logs of hub and agent, at their most talkative, in the metrics, in
// the audit log, and in every file but the keys' own.
func TestSecretsAreInNoOutput(t *testing.T) {
	h := attacked(t)
	agentLog := &output{}
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Secret", "canary-in-an-answers-header")
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(w, "canary-in-an-answer %s", body)
	}))
	t.Cleanup(cluster.Close)
	h.tunnel(t, "north-1", cluster.URL, "canary-of-the-agents-token", agentLog)

	client, err := rest.HTTPClientFor(h.admin)
	if err != nil {
		t.Fatal(err)
	}
	anonymous, err := rest.HTTPClientFor(h.anonymous())
	if err != nil {
		t.Fatal(err)
	}
	send := func(client *http.Client, method, path, body string, header ...string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, h.admin.Host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	const secrets = "/api/v1/namespaces/default/secrets"
	send(client, "POST", secrets, `{"metadata":{"name":"good"},"stringData":{"a":"canary-in-a-secret"}}`)
	send(client, "POST", secrets, `{"metadata":{"name":"Bad_Name"},"stringData":{"a":"canary-in-a-refused-secret"}}`)
	send(client, "POST", secrets, `{"metadata":{"name":"x"},"stringData":{"a":"canary-in-broken-json"`)
	send(client, "PATCH", secrets+"/good", `{"stringData":{"b":"canary-in-a-patch"}}`, "Content-Type", "application/merge-patch+json")
	send(client, "POST", "/apis/tripod.dev/v1alpha1/namespaces/default/datasets",
		`{"apiVersion":"tripod.dev/v1alpha1","kind":"Dataset","metadata":{"name":"d"},"spec":{"driver":"nonesuch","members":[{"cluster":"north-1","address":"192.0.2.1:1","parameters":{"p":"canary-in-a-refused-dataset"}}]}}`)
	send(anonymous, "GET", "/api", "", "Authorization", "Bearer canary-as-a-token")
	send(anonymous, "GET", "/api", "", "Authorization", "Bearer canary.canary-as-a-claim.x")
	send(anonymous, "GET", "/api", "", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ann:canary-as-a-password")))
	send(anonymous, "GET", "/api", "", "Cookie", "session=canary-as-a-cookie", "X-Api-Key", "canary-as-a-key")
	var code int
	var body string
	eventually(t, "the tunnel is open", func(context.Context) error {
		if code, body = send(client, "POST", "/clusters/north-1/api/v1/namespaces/n/secrets", `{"a":"canary-through-the-tunnel"}`,
			"Cookie", "canary-cookie-through-the-tunnel", "Authorization-Extra", "canary-header-through-the-tunnel"); code != http.StatusConflict {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	// The test can fail: the canary went through, and came back to whom it belongs.
	if !strings.Contains(body, "canary-in-an-answer") || !strings.Contains(body, "canary-through-the-tunnel") {
		t.Fatalf("got %s", body)
	}
	joined := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-canary", Namespace: "kube-system"},
		Type: corev1.SecretTypeBootstrapToken, StringData: map[string]string{"token-id": "canary", "token-secret": "canarycanary1234", "usage-bootstrap-authentication": "true"}}
	if _, err := h.kube(t, h.admin).CoreV1().Secrets("kube-system").Create(t.Context(), joined, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	send(anonymous, "GET", "/api", "", "Authorization", "Bearer canary.canarycanary1234")
	h.search(t, agentLog)
}

// tunnel keeps an agent's tunnel to a cluster that is only an HTTP server.
func (h *running) tunnel(t *testing.T, cluster, backend, token string, log io.Writer) {
	t.Helper()
	config := h.tls(nil, h.agent(t, cluster))
	tunnels, err := tunnel.New(tunnel.Config{
		Members: []string{h.at(hub.RPCPort)}, Replica: "r1", TLS: config, RESTConfig: &rest.Config{Host: backend, BearerToken: token},
		RedialMin: 10 * time.Millisecond, RedialMax: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tunnels.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// leaks are the lines of a text with a canary. Names of objects are no secrets.
func leaks(text string) []string {
	var found []string
	for _, line := range strings.Split(text, "\n") {
		named := strings.ReplaceAll(line, "bootstrap-token-canary", "")
		named = strings.ReplaceAll(named, "bootstrap:canary", "") // the token's public half
		if i := strings.Index(named, "canary"); i >= 0 {
			found = append(found, named[max(0, i-60):min(len(named), i+60)])
		}
	}
	for _, secret := range []string{"canary-in-a-secret", "canary-as-a-password", "canary-through-the-tunnel"} {
		if strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
			found = append(found, "base64 of "+secret)
		}
	}
	return found
}

// search looks at everything that the hub and the agent have said or written.
func (h *running) search(t *testing.T, agentLog *output) {
	t.Helper()
	if found := leaks("x canary-x y"); len(found) != 1 {
		t.Fatal("the search finds nothing")
	}
	outputs := map[string]string{"the agent's log": agentLog.String()}
	for _, path := range []string{"/metrics", "/metrics/slis", "/readyz?verbose", "/debug/api_priority_and_fairness/dump_requests"} {
		text, err := h.kube(t, h.admin).RESTClient().Get().RequestURI(path).DoRaw(t.Context())
		if err != nil && !strings.Contains(path, "dump_requests") {
			t.Errorf("%s: %v", path, err)
		}
		outputs[path] = string(text)
	}
	err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.Contains(path, "/pki/") {
			return err
		}
		text, err := os.ReadFile(path)
		outputs[strings.TrimPrefix(path, h.dir)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{"/hub.log", "/data/apiserver/audit/audit.log"} {
		if len(outputs[must]) < 1000 {
			t.Errorf("%s has %d bytes: the search looks in the wrong place", must, len(outputs[must]))
		}
	}
	for name, text := range outputs {
		if found := leaks(text); len(found) > 0 {
			t.Errorf("%s has %d lines with a canary, for instance …%s…", name, len(found), found[0])
		}
	}
}
