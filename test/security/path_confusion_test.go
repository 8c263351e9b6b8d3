package security

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub"
)

// TestPathAndNameConfusion: a person who may only read north-1, by name, writes
// requests that another reader of the same bytes could take for north-2's, for the
// hub's, or for a person of more rights. No agent is connected, so a request that the
// gateway lets through is answered 503 with the name of the cluster that it chose.
func TestPathAndNameConfusion(t *testing.T) {
	h := attacked(t)
	roles := h.kube(t, h.admin).RbacV1()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reads-north-1"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"tripod.dev"}, Resources: []string{"clusters/proxy"}, ResourceNames: []string{"north-1"}, Verbs: []string{"get"}},
	}}
	if _, err := roles.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reads-north-1"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reads-north-1"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "ann"}}}
	if _, err := roles.ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config := h.tls([]string{"http/1.1"}, h.certificate(t, "ann", "dev"))
	// send writes a request as it is and returns the answer.
	send := func(line, header string) (int, string) {
		conn := h.dial(t, hub.APIPort, config)
		defer conn.Close()
		if !strings.Contains(header, "Host:") {
			header = "Host: hub\r\n" + header
		}
		_, _ = fmt.Fprintf(conn, "%s HTTP/1.1\r\n%sConnection: close\r\n\r\n", line, header) // it may hang up first
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	eventually(t, "ann may read north-1", func(context.Context) error {
		if code, body := send("GET /clusters/north-1/api", ""); code != http.StatusServiceUnavailable || !strings.Contains(body, `cluster \"north-1\"`) {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	for _, attack := range [][2]string{
		{"GET /clusters/north-2/api", ""},
		{"GET /clusters/north-1/../north-2/api", ""}, {"GET /clusters/north-1/%2e%2e/north-2/api", ""},
		{"GET /clusters/north-1/%2E%2E%2Fnorth-2/api", ""}, {"GET /clusters/north-1%2f..%2fnorth-2/api", ""},
		{"GET /clusters/north-1\\..\\north-2/api", ""},
		{"GET /clusters/north-1/%5c..%5cnorth-2/api", ""}, {"GET /clusters//north-2/api", ""}, {"GET //clusters/north-2/api", ""},
		{"GET /clusters/./north-2/api", ""}, {"GET /./clusters/north-2/api", ""}, {"GET /x/../clusters/north-2/api", ""},
		{"GET /%63lusters/north-2/api", ""}, {"GET /clusters/north%2d2/api", ""}, {"GET /clusters/NORTH-2/api", ""},
		{"GET /clusters/north-1%00/north-2/api", ""}, {"GET /clusters/north-1%0d%0aHost:%20north-2/api", ""},
		{"GET /clusters/north-2%23/api", ""}, {"GET /clusters/north-2%3f/api", ""}, {"GET /clusters/north-1@north-2/api", ""},
		{"GET /clusters/north-1:443@north-2/api", ""}, {"GET /clusters/north-2:80/api", ""}, {"GET /clusters/north-2./api", ""},
		{"GET https://north-2/clusters/north-2/api", ""}, {"GET http://hub/clusters/north-2/api", ""}, {"GET north-2:6443", ""},
		{"CONNECT north-2:6443", ""}, {"GET *", ""}, {"TRACE /clusters/north-1/api", ""},
		{"GET /clusters/north-2/api", "Host: north-1\r\n"}, {"GET /clusters/north-2/api", "X-Original-URL: /clusters/north-1/api\r\n"},
		{"GET /clusters/north-2/api", "X-Rewrite-URL: /clusters/north-1/api\r\n"}, {"GET /clusters/north-2/api", "X-Forwarded-Prefix: /clusters/north-1\r\n"},
		{"GET /clusters/north-2/api", "X-HTTP-Method-Override: OPTIONS\r\n"},
		{"POST /clusters/north-1/api/v1/namespaces", "X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n"},
		{"DELETE /clusters/north-1/api/v1/namespaces/n", "X-HTTP-Method: GET\r\n"},
		{"GET /clusters/north-1/api/v1/namespaces/n/pods/p/exec", "Upgrade: websocket\r\nConnection: Upgrade\r\n"},
		{"GET /clusters/north-1/api", "Impersonate-User: tripod:admin\r\nImpersonate-Group: system:masters\r\n"},
		{"GET /clusters/north-1/api", "Impersonate-User: system:apiserver\r\n"},
		{"GET /clusters/north-2/api", "X-Remote-User: tripod:admin\r\nX-Remote-Group: system:masters\r\n"},
		{"GET /clusters/north-2/api", "X-Forwarded-User: tripod:admin\r\nForwarded: for=127.0.0.1\r\n"},
		{"GET /fleet/api/v1/pods", ""}, {"GET /fleet/../clusters/north-2/api", ""}, {"GET /fleet/clusters/north-2/api", ""},
		{"GET /fleet/fleet/api/v1/pods", ""}, {"GET /apis/tripod.dev/v1alpha1/clusters/north-2/proxy/api", ""},
		{"GET /apis/tripod.dev/v1alpha1/clusters/north-1/proxy/../../north-2/proxy", ""},
		{"GET /proxy/clusters/north-2/api", ""}, {"GET /api/clusters/north-2/api", ""},
		{"POST /clusters/north-1/api", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"},
		{"GET /clusters/north-1/api", "Transfer-Encoding: xchunked\r\n"}, {"GET /clusters/north-1/api", "Content-Length: 1, 2\r\n"},
		{"GET /clusters/north-1/api", "Host: a\r\nHost: b\r\n"}, {"GET /clusters/north-1/api", " X-A: b\r\n"}, {"GET /clusters/north-1/api", "Impersonate-User : x\r\n"},
	} {
		code, body := send(attack[0], attack[1])
		if code == 0 || code == http.StatusBadRequest || code == http.StatusForbidden || code == http.StatusNotFound ||
			code == http.StatusMethodNotAllowed || code == http.StatusNotImplemented || code == http.StatusUnauthorized {
			continue
		}
		if code == http.StatusMovedPermanently || code == http.StatusTemporaryRedirect {
			continue // to the path in its one reading, which is judged when it comes
		}
		t.Errorf("%q %q: got %d %s", attack[0], attack[1], code, body)
	}
	// Query parameters are the cluster's: none leads elsewhere, and many cost nothing.
	for _, query := range []string{"/..;/north-2/api", "?cluster=north-2", "?path=../north-2", ";/../north-2", "?" + strings.Repeat("a=b&", 20000), "#/clusters/north-2"} {
		code, body := send("GET /clusters/north-1/api"+query, "")
		if code == http.StatusServiceUnavailable && !strings.Contains(body, `cluster \"north-1\"`) || code == http.StatusOK {
			t.Errorf("%.40q: got %d %s", query, code, body)
		}
	}
}
