package session_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/session"
	"tripod.dev/tripod/member-agent/tunnel"
)

// apiServer plays a cluster's API server: HTTP/2, with upgrades and a stream.
func apiServer(t *testing.T, release <-chan struct{}) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "query": r.URL.RawQuery, "path": r.URL.EscapedPath()})
	})
	mux.HandleFunc("/watch", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "second\n")
	})
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/exec", func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		_, _ = io.Copy(conn, buffered)
	})
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func (f *fleet) tunnel(cluster, name string, backend *rest.Config, changes ...func(*tunnel.Config)) *tunnel.Tunnel {
	f.t.Helper()
	config := tunnel.Config{
		Members: f.addresses(), Replica: name, TLS: f.ca.agent(cluster), RESTConfig: backend,
		RedialMin: 10 * time.Millisecond, RedialMax: 100 * time.Millisecond, Logger: f.log(name),
	}
	for _, change := range changes {
		change(&config)
	}
	tunnels, err := tunnel.New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.run(tunnels.Run)
	return tunnels
}

// through is a client of a cluster by way of a member's tunnels.
func (f *fleet) through(member, cluster string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return f.members[member].server.Dial(ctx, cluster)
	}}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (f *fleet) reachable(cluster string) {
	f.t.Helper()
	eventually(f.t, "a tunnel at every member", func() bool {
		for _, m := range f.members {
			conn, err := m.server.Dial(context.Background(), cluster)
			if err != nil {
				return false
			}
			_ = conn.Close()
		}
		return true
	})
}

func TestATunnelCarriesRequestsAsTheAgentForTheCaller(t *testing.T) {
	f := newFleet(t)
	api := apiServer(t, nil)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("agent-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, BearerTokenFile: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	for name := range f.members {
		request, _ := http.NewRequest("GET", "http://north-1/echo?labelSelector=a%3Db;c", nil)
		request.Header.Set("Impersonate-User", "alice")
		request.Header.Add("Impersonate-Group", "ops")
		request.Header.Add("Impersonate-Group", "dev")
		request.Header.Set("Authorization", "Bearer of-the-hub")
		request.Header.Set("X-Forwarded-For", "192.0.2.7")
		response, err := f.through(name, "north-1").Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Headers http.Header
			Query   string
		}
		if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got.Query != "labelSelector=a%3Db;c" {
			t.Errorf("query is %q", got.Query)
		}
		for header, want := range map[string]string{
			"Impersonate-User": "[alice]", "Impersonate-Group": "[ops dev]", "Authorization": "[Bearer agent-token]", "X-Forwarded-For": "[192.0.2.7]",
		} {
			if have := fmt.Sprint(got.Headers[header]); have != want {
				t.Errorf("%s is %s, want %s", header, have, want)
			}
		}
	}
}

func TestAWatchThroughATunnelIsFlushedAtOnce(t *testing.T) {
	f := newFleet(t)
	release := make(chan struct{})
	api := apiServer(t, release)
	f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	response, err := f.through("a", "north-1").Get("http://north-1/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatalf("got %q, %v", lines.Text(), lines.Err())
	}
	close(release)
	if !lines.Scan() || lines.Text() != "second" {
		t.Fatalf("got %q, %v", lines.Text(), lines.Err())
	}
}

func TestAnUpgradeGoesThroughATunnel(t *testing.T) {
	f := newFleet(t)
	api := apiServer(t, nil)
	f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	for _, protocol := range []string{"SPDY/3.1", "websocket"} {
		conn, err := f.members["b"].server.Dial(context.Background(), "north-1")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(conn, "POST /exec HTTP/1.1\r\nHost: north-1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != protocol {
			t.Fatalf("%s: %v, %v", protocol, response, err)
		}
		_, _ = io.WriteString(conn, "ping\n")
		if line, err := reader.ReadString('\n'); err != nil || line != "ping\n" {
			t.Errorf("%s: echo is %q, %v", protocol, line, err)
		}
		_ = conn.Close()
	}
}

func TestAStalledStreamHoldsUpNobody(t *testing.T) {
	f := newFleet(t)
	api := apiServer(t, nil)
	f.tunnel("north-1", "r1", &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	f.reachable("north-1")
	stalled, err := f.through("a", "north-1").Get("http://north-1/flood") // and nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stalled.Body.Close() }()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			response, err := f.through("a", "north-1").Get(fmt.Sprintf("http://north-1/echo?n=%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("request %d: %v, %v", i, response.Status, err)
			}
		})
	}
	all.Wait()
}

// TestATunnelWhoseAgentDoesNotAnswerEnds: its connection stands, as that of a process
// that is stopped does.
func TestATunnelWhoseAgentDoesNotAnswerEnds(t *testing.T) {
	f := newFleet(t)
	config := f.ca.agent("north-1")
	config.NextProtos = []string{session.ProtocolTunnel}
	conn := f.idle(f.address("a"), "r1", config)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the tunnel is open after %v", patience)
	}
	eventually(t, "no tunnel", func() bool {
		_, err := f.members["a"].server.Dial(context.Background(), "north-1")
		return errors.Is(err, session.ErrNoTunnel)
	})
}

// TestThePortFollowsTheAuthorities: whom it believes is asked at each handshake, although
// connections share what they are configured by.
func TestThePortFollowsTheAuthorities(t *testing.T) {
	one, two := newPKI(t), newPKI(t)
	var roots atomic.Pointer[x509.CertPool]
	roots.Store(one.Pool())
	_, address := quiet(t, func(c *session.Config) { c.TLS, c.Roots = one.server("a"), roots.Load })
	believed := func(of *pki) bool {
		config := of.agent("north-1")
		config.NextProtos, config.RootCAs = []string{session.ProtocolTunnel}, one.Pool()
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, "r1\n")
		answer, _ := bufio.NewReader(conn).ReadString('\n')
		return answer == "OK\n"
	}
	for range 2 {
		if !believed(one) || believed(two) {
			t.Error("the port does not believe the first authority and no other")
		}
	}
	roots.Store(two.Pool())
	if believed(one) || !believed(two) {
		t.Error("the port does not believe the second authority and no other")
	}
}

func TestDialSaysThatThereIsNoTunnel(t *testing.T) {
	f := newFleet(t)
	if _, err := f.members["a"].server.Dial(context.Background(), "south-9"); !errors.Is(err, session.ErrNoTunnel) {
		t.Errorf("got %v", err)
	}
	f.refuse("north-9", errors.New("north-9 is Pending"))
	f.tunnel("north-9", "r1", &rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	<-time.After(3 * times().Tick)
	if _, err := f.members["a"].server.Dial(context.Background(), "north-9"); !errors.Is(err, session.ErrNoTunnel) {
		t.Errorf("a cluster that is not accepted has a tunnel: %v", err)
	}
}
