package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/gateway"
)

// BenchmarkPassage is what the filters and the gateway take for one request to a
// cluster, without TLS and HTTP/2 on either side: what the hub adds to a proxy. Its
// processor time, cpu-µs/op, is of the whole process: use -benchtime 20000x, or the
// server's own work counts too much.
func BenchmarkPassage(b *testing.B) {
	passages := newPassages(b)
	r := passages.request(b, "/clusters/north/api/v1/namespaces/default/configmaps/read")
	pass := func() {
		served := make(chan *httptest.ResponseRecorder)
		go func() { // as HTTP/2 does
			w := httptest.NewRecorder()
			passages.front.ServeHTTP(w, r.Clone(context.Background()))
			served <- w
		}()
		if w := <-served; w.Code != http.StatusOK {
			b.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	pass()
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		pass()
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// passages lead through a whole server to a cluster that answers everything alike.
type passages struct {
	hub   *hub
	front http.Handler
	// long has requests go through upstream's chain as it is.
	long atomic.Bool
}

func newPassages(t testing.TB) *passages {
	t.Helper()
	p := &passages{}
	routes, err := gateway.New(gateway.Config{Dialer: p, Clusters: p, Fleet: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(routes.Close)
	p.hub = startHub(t, func(c *Config) {
		c.Hooks = Hooks{RequestInfo: routes.RequestInfo, LongRunning: routes.LongRunning, Handler: routes.Handler,
			Passes: func(r *http.Request) bool { return !p.long.Load() && routes.Passes(r) },
			Front: func(next http.Handler) http.Handler {
				p.front = routes.Front(next)
				return p.front
			}}
	})
	client, err := kubernetes.NewForConfig(p.hub.admin())
	if err != nil {
		t.Fatal(err)
	}
	name := metav1.ObjectMeta{Name: "passer"}
	role := &rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"clusters/proxy"}, Verbs: []string{"get"}}}}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "ann"}}}
	if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// request is one by ann, whose certificate TLS has taken.
func (p *passages) request(t testing.TB, path string) *http.Request {
	t.Helper()
	text, _ := p.hub.authority.issue("ann")
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{certificate}}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "bench")
	eventually(t, "ann may pass", func(context.Context) string {
		w := httptest.NewRecorder()
		p.front.ServeHTTP(w, r.Clone(context.Background()))
		if w.Code != http.StatusOK {
			return w.Body.String()
		}
		return ""
	})
	return r
}

// Cluster implements gateway.Clusters.
func (p *passages) Cluster(name string) (*v1alpha1.Cluster, bool) {
	return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ClusterSpec{Admission: v1alpha1.AdmissionAccepted, Access: v1alpha1.ClusterAccess{Mode: v1alpha1.AccessTunnel}}}, true
}

const passedAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

// Dial implements gateway.Dialer. What is at the other end reads a request's head and
// answers, but for the cluster that is silent.
func (p *passages) Dial(_ context.Context, cluster string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer func() { _ = far.Close() }()
		lines := bufio.NewScanner(far)
		for lines.Scan() {
			if cluster == "silent" || strings.TrimSpace(lines.Text()) != "" {
				continue
			}
			if _, err := far.Write([]byte(passedAnswer)); err != nil {
				return
			}
		}
	}()
	return near, nil
}

func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
