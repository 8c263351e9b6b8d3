package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/transport"
	"pgregory.net/rapid"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

var ann = &user.DefaultInfo{Name: "ann", UID: "u-1", Groups: []string{"dev", "system:authenticated"},
	Extra: map[string][]string{"Scopes/Example.test": {"a", "b"}}}

// clusters are the fleet's Cluster objects.
type clusters map[string]*v1alpha1.Cluster

func (c clusters) Cluster(name string) (*v1alpha1.Cluster, bool) {
	cluster, ok := c[name]
	return cluster, ok
}

func accepted(name string) *v1alpha1.Cluster {
	return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterSpec{Admission: v1alpha1.AdmissionAccepted}}
}

// member is a member cluster behind a dialer, and the door before it.
type member struct {
	t      *testing.T
	server *httptest.Server
	door   *httptest.Server
	routes *Routes
	person user.Info

	mu       sync.Mutex
	requests []*http.Request
	dials    []string
	dialErr  error
	handler  http.HandlerFunc
}

func newMember(t *testing.T, handler http.HandlerFunc) *member {
	t.Helper()
	m := &member{t: t, person: ann, handler: handler}
	m.server = httptest.NewServer(m)
	pending := accepted("pending-1")
	pending.Spec.Admission = v1alpha1.AdmissionPending
	var err error
	m.routes, err = New(Config{
		Dialer:   m,
		Clusters: clusters{"north-1": accepted("north-1"), "north-2": accepted("north-2"), "pending-1": pending},
		Fleet: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "fleet "+r.URL.Path)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	handled := m.routes.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hub") }))
	m.door = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if m.person != nil {
			ctx = request.WithUser(ctx, m.person)
		}
		handled.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(func() {
		m.door.CloseClientConnections()
		m.door.Close()
		m.routes.Close()
		m.server.CloseClientConnections()
		m.server.Close()
	})
	return m
}

// Dial implements Dialer.
func (m *member) Dial(ctx context.Context, cluster string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dialErr != nil {
		return nil, m.dialErr
	}
	m.dials = append(m.dials, cluster)
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", m.server.Listener.Addr().String())
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.requests = append(m.requests, r.Clone(context.Background()))
	m.mu.Unlock()
	m.handler(w, r)
}

func (m *member) last() *http.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.requests) == 0 {
		m.t.Fatal("no request reached the cluster")
	}
	return m.requests[len(m.requests)-1]
}

func (m *member) do(method, path string, header http.Header) (*http.Response, string) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, m.door.URL+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	client := m.door.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return response, string(body)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "cluster") }

func TestEachPathReachesItsPlace(t *testing.T) {
	m := newMember(t, ok)
	for path, want := range map[string]string{"/api": "hub", "/fleet/api/v1/pods": "fleet /api/v1/pods", "/clusters/north-1/api": "cluster"} {
		if _, body := m.do("GET", path, nil); body != want {
			t.Errorf("%s answers %q, want %q", path, body, want)
		}
	}
	m.do("GET", "/clusters/north-1/api/v1/x%3Ay?limit=5&watch=0", nil)
	if got := m.last().RequestURI; got != "/api/v1/x%3Ay?limit=5&watch=0" {
		t.Errorf("the cluster was asked for %q", got)
	}
}

func TestTheClusterSeesThePersonAndNothingThatTheClientClaims(t *testing.T) {
	m := newMember(t, ok)
	m.do("GET", "/clusters/north-1/api", http.Header{
		"Authorization":             {"Bearer stolen"},
		"Cookie":                    {"session=1"},
		"Impersonate-User":          {"system:admin"},
		"Impersonate-Group":         {"system:masters"},
		"Impersonate-Extra-Scopes":  {"all"},
		"Impersonate_user":          {"system:admin"},
		"X-Remote-User":             {"system:admin"},
		"X-Remote-Group":            {"system:masters"},
		"X-Remote-Extra-Key":        {"x"},
		"X-Forwarded-For":           {"10.0.0.1"},
		"Forwarded":                 {"for=10.0.0.1"},
		"Connection":                {"Impersonate-User, Impersonate-Group, Audit-Id"},
		"Sec-Websocket-Protocol":    {"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c3RvbGVu"},
		"Accept":                    {"application/json"},
		"X-Stream-Protocol-Version": {"v5.channel.k8s.io"},
	})
	got := m.last().Header
	for _, name := range []string{"User-Agent", "Accept-Encoding"} {
		got.Del(name)
	}
	want := http.Header{
		"Impersonate-User":  {"ann"},
		"Impersonate-Uid":   {"u-1"},
		"Impersonate-Group": {"dev"},
		"Impersonate-Extra-%53copes%2f%45xample.test": {"a", "b"},
		"Accept":                    {"application/json"},
		"Sec-Websocket-Protocol":    {"v5.channel.k8s.io"},
		"X-Stream-Protocol-Version": {"v5.channel.k8s.io"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPeopleArriveUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[!-~]([ -~]{0,8}[!-~])?`)
		key := rapid.OneOf(rapid.StringMatching(`[a-zA-Z/.%]{1,8}`), rapid.String().Filter(func(s string) bool { return s != "" }))
		person := &user.DefaultInfo{
			Name:   word.Draw(t, "name"),
			UID:    rapid.StringMatching(`[a-z0-9-]{0,8}`).Draw(t, "uid"),
			Groups: rapid.SliceOfN(word, 0, 3).Draw(t, "groups"),
			Extra:  rapid.MapOfN(key, rapid.SliceOfN(word, 1, 2), 0, 3).Draw(t, "extra"),
		}
		if !expressible(person) {
			t.Fatalf("%+v is refused", person)
		}
		got := http.Header{}
		impersonate(got, person)
		// As k8s.io/apiserver's impersonation filter reads it.
		extra := map[string][]string{}
		for name, values := range got {
			if escaped, ok := strings.CutPrefix(strings.ToLower(name), "impersonate-extra-"); ok {
				key, err := url.PathUnescape(escaped)
				if err != nil {
					t.Fatal(err)
				}
				extra[key] = values
			}
		}
		if diff := cmp.Diff(person.Extra, extra, cmpopts.EquateEmpty()); diff != "" || got.Get("Impersonate-User") != person.Name {
			t.Fatal(diff)
		}
		for key := range person.Extra {
			if strings.ToLower(key) != key {
				return // client-go leaves upper case as it is
			}
		}
		if diff := cmp.Diff(byClientGo(t, person), got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func byClientGo(t *rapid.T, person *user.DefaultInfo) http.Header {
	var sent http.Header
	capture := roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = r.Header
		return nil, errors.New("captured")
	})
	config := transport.ImpersonationConfig{UserName: person.Name, UID: person.UID, Groups: person.Groups, Extra: person.Extra}
	if _, err := transport.NewImpersonatingRoundTripper(config, capture).RoundTrip(httptest.NewRequest("GET", "/", nil)); sent == nil {
		t.Fatal(err)
	}
	return sent
}

func TestPeopleWhomHeadersChangeAreRefused(t *testing.T) {
	for name, person := range map[string]*user.DefaultInfo{
		"space at the end of the name": {Name: "admin "},
		"space before a group":         {Name: "ann", Groups: []string{" system:masters"}},
		"a newline in the name":        {Name: "ann\r\nImpersonate-Group: system:masters"},
		"a newline in an extra":        {Name: "ann", Extra: map[string][]string{"a": {"b\nc"}}},
		"an empty group":               {Name: "ann", Groups: []string{""}},
		"a tab at the end of the uid":  {Name: "ann", UID: "1\t"},
	} {
		m := newMember(t, ok)
		m.person = person
		if response, body := m.do("GET", "/clusters/north-1/api", nil); response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %d %s", name, response.StatusCode, body)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		method, path string
		arrange      func(*member)
		answer       http.HandlerFunc
		code         int
		message      string
	}{
		"a cluster that is not in the fleet": {path: "/clusters/west-9/api", code: 404, message: "tripodctl clusters"},
		"no cluster":                         {path: "/clusters/", code: 404, message: "names no cluster"},
		"a path that can be read twice":      {path: "/clusters/north-1/..%2fx", code: 400, message: "send it plain"},
		"a cluster that is not accepted":     {path: "/clusters/pending-1/api", code: 503, message: "accept it"},
		"a method that no API server knows":  {method: "PURGE", path: "/clusters/north-1/api", code: 405, message: "PURGE"},
		"a cluster that is not connected": {path: "/clusters/north-1/api", code: 503, message: "no agent is connected",
			arrange: func(m *member) { m.dialErr = errors.New("no agent is connected") }},
		"a request without an identity": {path: "/clusters/north-1/api", code: 502, message: "who is asking",
			arrange: func(m *member) { m.person = nil }},
		"an identity without a name": {path: "/clusters/north-1/api", code: 502, message: "who is asking",
			arrange: func(m *member) { m.person = &user.DefaultInfo{Groups: []string{"g"}} }},
		"a redirect": {path: "/clusters/north-1/api", code: 502, message: "redirect",
			answer: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://evil.test/", http.StatusFound)
			}},
		"an agent whose credentials are refused": {path: "/clusters/north-1/api", code: 502, message: "credentials",
			answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }},
		"a cluster that hangs up": {path: "/clusters/north-1/api", code: 502, message: "no usable answer",
			answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.answer == nil {
				test.answer = ok
			}
			m := newMember(t, test.answer)
			if test.arrange != nil {
				test.arrange(m)
			}
			if test.method == "" {
				test.method = "GET"
			}
			response, body := m.do(test.method, test.path, nil)
			var status metav1.Status
			if err := json.Unmarshal([]byte(body), &status); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if response.StatusCode != test.code || status.Kind != "Status" || !strings.Contains(status.Message, test.message) {
				t.Fatalf("got %d %+v", response.StatusCode, status)
			}
			if warned := strings.Contains(response.Header.Get("Warning"), test.message); warned != (test.code >= 500) {
				t.Errorf("Warning = %q", response.Header.Get("Warning"))
			}
			if told := status.Details != nil && status.Details.RetryAfterSeconds > 0; told != (test.code == 503) || response.Header.Get("Retry-After") != "" {
				t.Errorf("details %+v, Retry-After %q", status.Details, response.Header.Get("Retry-After"))
			}
			if response.Header.Get("Location") != "" {
				t.Error("a redirect was relayed")
			}
		})
	}
}

func TestAnswersPassThroughAndTheirOwnHeadersStay(t *testing.T) {
	m := newMember(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "old API"`)
		w.Header().Set("Audit-Id", "the member's")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"kind":"Status"}`)
	})
	response, body := m.do("PUT", "/clusters/north-1/api/v1/namespaces/n", nil)
	got := []any{response.StatusCode, response.Header.Get("Warning"), response.Header.Get("Audit-Id"), response.Header.Get("Set-Cookie"), body}
	if diff := cmp.Diff([]any{409, `299 - "old API"`, "", "", `{"kind":"Status"}`}, got); diff != "" {
		t.Error(diff)
	}
}

func TestConnectionsAreKeptPerCluster(t *testing.T) {
	m := newMember(t, ok)
	for range 3 {
		m.do("GET", "/clusters/north-1/api", nil)
		m.do("GET", "/clusters/north-2/api", nil)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if diff := cmp.Diff([]string{"north-1", "north-2"}, m.dials); diff != "" {
		t.Error(diff)
	}
}

func TestWatchEventsAreNotHeldBack(t *testing.T) {
	more, end := make(chan struct{}), make(chan struct{})
	m := newMember(t, func(w http.ResponseWriter, r *http.Request) {
		for _, wait := range []chan struct{}{more, end} {
			_, _ = fmt.Fprintln(w, "event")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-wait:
			case <-r.Context().Done():
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", m.door.URL+"/clusters/north-1/api/v1/pods?watch=1", nil)
	response, err := m.door.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for range 2 {
		if line, err := lines.ReadString('\n'); err != nil || line != "event\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		select {
		case <-more:
		default:
			close(more)
		}
	}
	close(end)
}

// echo upgrades and sends back what it gets.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "not an upgrade", http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	_ = buffered.Flush()
	_, _ = io.Copy(conn, buffered)
}

// upgrade asks for an upgrade on a connection of its own.
func (m *member) upgrade(protocol, path string) (net.Conn, *bufio.Reader, *http.Response) {
	m.t.Helper()
	conn, err := net.Dial("tcp", m.door.Listener.Addr().String())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n\r\n", path, protocol)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return conn, reader, response
}

func TestUpgradesCarryBytesBothWays(t *testing.T) {
	for _, protocol := range []string{"SPDY/3.1", "websocket"} {
		t.Run(protocol, func(t *testing.T) {
			m := newMember(t, echo)
			conn, reader, response := m.upgrade(protocol, "/clusters/north-1/api/v1/namespaces/n/pods/p/exec")
			if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != protocol {
				t.Fatalf("got %d %v", response.StatusCode, response.Header)
			}
			for _, line := range []string{"ls\n", "exit\n"} {
				_, _ = io.WriteString(conn, line)
				if got, err := reader.ReadString('\n'); err != nil || got != line {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			if got := m.last().Header.Get("Impersonate-User"); got != "ann" {
				t.Errorf("the cluster saw %q", got)
			}
		})
	}
}

func TestAConnectionWhoseUpgradeFailedIsNotUsedAgain(t *testing.T) {
	m := newMember(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	conn, reader, response := m.upgrade("SPDY/3.1", "/clusters/north-1/api/v1/namespaces/n/pods/p/exec")
	_ = response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Fatalf("got %d", response.StatusCode)
	}
	// What follows on the client's connection is a request to the door, not
	// bytes to the cluster (CVE-2018-1002105).
	_, _ = io.WriteString(conn, "GET /api HTTP/1.1\r\nHost: hub\r\n\r\n")
	next, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Body.Close()
	if body, _ := io.ReadAll(next.Body); string(body) != "hub" {
		t.Errorf("the second request was answered by %q", body)
	}
	_, _, second := m.upgrade("SPDY/3.1", "/clusters/north-1/api/v1/namespaces/n/pods/p/exec")
	_ = second.Body.Close()
	m.do("GET", "/clusters/north-1/api", nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.dials) != 3 {
		t.Errorf("%d connections were opened, want one for each upgrade and one after", len(m.dials))
	}
}
