package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"tripod.dev/tripod/deploy/agent"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/member-agent/tunnel"
	"tripod.dev/tripod/test/authority"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// rig is one real API server with a kubelet of ours, and a door before it for
// each of the two ways to reach it.
type rig struct {
	t      *testing.T
	direct *kubernetes.Clientset // straight to the API server, as an administrator
	config *rest.Config          // the same
	doors  map[string]string     // address of /clusters/north-1, by mode
	// helm is its program, aggregatedLog the audit log of the aggregated API.
	helm, aggregatedLog string
}

// filed is a folder with the CA's certificate as ca.crt.
func filed(t *testing.T, ca *authority.Authority) string {
	t.Helper()
	dir := t.TempDir()
	ca.Write(t, dir, ca.Issue(t, "hub"))
	return dir
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ca := authority.New(t, "hub-ca")
	config := kubeapi.Start(t, append(frontProxy(t), "--client-ca-file", filepath.Join(filed(t, ca), "ca.crt"))...)
	r := &rig{t: t, direct: kubernetes.NewForConfigOrDie(config), config: config, doors: map[string]string{}}
	r.mayImpersonate()
	r.runKubelet()
	r.helm, r.aggregatedLog = theirs(t, "helm", "helm.sh/helm/v4/cmd/helm"), r.runAggregated()

	near := accepted("north-1")
	dialer := newTunnelEnd(t, ca, config)
	r.doors["tunnel"] = r.door(Config{Dialer: dialer, Clusters: clusters{"north-1": near}})

	far := accepted("north-1")
	far.Spec.Access = v1alpha1.ClusterAccess{Mode: v1alpha1.AccessDirect, Server: config.Host, CABundle: servedCA(t, config.Host)}
	member := ca.Issue(t, "tripod:member:a", "tripod:members")
	r.doors["direct"] = r.door(Config{Dialer: dialer, Clusters: clusters{"north-1": far}, Reach: Reach{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, ClientCertificate: func() (*tls.Certificate, error) { return &member, nil }})
	return r
}

// mayImpersonate is what mode Direct asks of a cluster.
func (r *rig) mayImpersonate() {
	r.t.Helper()
	role, binding, err := agent.Role("gateway")
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.direct.RbacV1().ClusterRoles().Create(r.t.Context(), role, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.direct.RbacV1().ClusterRoleBindings().Create(r.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func servedCA(t *testing.T, host string) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(host, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var chain []byte
	for _, cert := range conn.ConnectionState().PeerCertificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return chain
}

func (r *rig) door(config Config) string {
	r.t.Helper()
	config.Fleet, config.Logger = http.NotFoundHandler(), slog.New(slog.DiscardHandler)
	routes, err := New(config)
	if err != nil {
		r.t.Fatal(err)
	}
	master := &user.DefaultInfo{Name: "ann", Groups: []string{"system:masters", "system:authenticated"}, Extra: map[string][]string{"example.test/ticket": {"T-1"}}}
	door := chained(&member{t: r.t, routes: routes, person: master}, &record{}, func(a authorizer.Attributes) bool { return a.GetResource() == "clusters" && a.GetName() == "north-1" })
	r.t.Cleanup(func() {
		door.CloseClientConnections()
		door.Close()
		routes.Close()
	})
	return door.URL + "/clusters/north-1"
}

// tunnelEnd is the hub's end of the tunnel of a real agent.
type tunnelEnd struct{ sessions chan *yamux.Session }

func newTunnelEnd(t *testing.T, ca *authority.Authority, config *rest.Config) *tunnelEnd {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.Issue(t, "hub")}, NextProtos: []string{tunnel.Protocol}})
	if err != nil {
		t.Fatal(err)
	}
	end := &tunnelEnd{sessions: make(chan *yamux.Session, 1)}
	accepted := make(chan error, 1)
	go func() { accepted <- end.accept(listener) }()
	agent, err := tunnel.New(tunnel.Config{Members: []string{listener.Addr().String()}, Replica: "r1", TLS: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool()}, RESTConfig: config, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	t.Cleanup(func() {
		session := <-end.sessions
		cancel()
		<-done
		_ = listener.Close()
		_ = session.Close()
		<-accepted
	})
	return end
}

func (e *tunnelEnd) accept(listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	if _, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "OK\n"); err != nil {
		return err
	}
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	session, err := yamux.Client(conn, config)
	if err != nil {
		return err
	}
	e.sessions <- session
	return nil
}

// Dial implements Dialer.
func (e *tunnelEnd) Dial(ctx context.Context, _ string) (net.Conn, error) {
	select {
	case session := <-e.sessions:
		e.sessions <- session
		return session.Open()
	case <-ctx.Done():
		return nil, errors.New("the agent has not opened its tunnel")
	}
}

// runKubelet answers for node-1: what a container would do is done here.
func (r *rig) runKubelet() {
	r.t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(serveKubelet))
	r.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	at, err := url.Parse(server.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		r.t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	if node, err = r.direct.CoreV1().Nodes().Create(r.t.Context(), node, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: at.Hostname()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err := r.direct.CoreV1().Nodes().UpdateStatus(r.t.Context(), node, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func serveKubelet(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	what, pod := parts[0], parts[min(2, len(parts)-1)]
	switch what {
	case "containerLogs":
		for i := range 3 {
			_, _ = fmt.Fprintln(w, "line", i)
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Query().Get("follow") == "true" {
			<-r.Context().Done()
		}
	case "portForward":
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, container{}, pod, "", options, time.Minute, 10*time.Second, portforward.SupportedProtocols)
	case "exec", "attach":
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if what == "exec" {
			remotecommand.ServeExec(w, r, container{}, pod, "", parts[3], r.URL.Query()["command"], options, time.Minute, 10*time.Second, remotecommand.SupportedStreamingProtocols)
			return
		}
		remotecommand.ServeAttach(w, r, container{}, pod, "", parts[3], options, time.Minute, 10*time.Second, remotecommand.SupportedStreamingProtocols)
	default:
		http.NotFound(w, r)
	}
}

// container echoes.
type container struct{}

func (container) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, stderr io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if cmd[0] == "tar" || cmd[0] == "test" { // kubectl cp
		program := exec.Command(cmd[0], cmd[1:]...)
		program.Stdin, program.Stdout, program.Stderr = in, out, stderr
		return program.Run()
	}
	if in == nil {
		_, err := fmt.Fprintln(out, strings.Join(cmd, " "))
		if stderr != nil {
			_, _ = fmt.Fprintln(stderr, "warning")
		}
		return err
	}
	_, err := io.Copy(out, in)
	return err
}

func (container) AttachContainer(_ context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if in == nil {
		_, err := fmt.Fprintln(out, "attached")
		return err
	}
	_, err := io.Copy(out, in)
	return err
}

func (container) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	line, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stream, "%d %s", port, line)
	return err
}
