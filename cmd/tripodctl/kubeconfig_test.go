package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	hubca "tripod.dev/tripod/test/authority"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// standIns are servers with the hub's certificate that say who they are and what
// they were asked.
func standIns(t *testing.T, names ...string) (members []fleetMember, ca []byte, servers []*httptest.Server) {
	t.Helper()
	own := hubca.New(t, "hub")
	certificate := own.Issue(t, "hub")
	for _, name := range names {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, name+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		}))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		server.StartTLS()
		t.Cleanup(server.Close)
		members = append(members, fleetMember{Name: name, Server: server.Listener.Addr().String()})
		servers = append(servers, server)
	}
	return members, own.PEM(), servers
}

func writeFleetConfig(t *testing.T, members []fleetMember, ca []byte) string {
	t.Helper()
	config, err := fleetConfig{
		server: members[0].Server, members: members, each: true, authority: ca,
		routes:      []fleetRoute{{name: "hub"}, {name: "fleet", path: "/fleet"}, clusterRoute("north-1"), clusterRoute("fleet"), applicationRoute("pay", "ledger")},
		credentials: &clientcmdapi.AuthInfo{Token: "ann's"},
	}.config()
	if err != nil {
		t.Fatal(err)
	}
	// What belongs to somebody else stays as it is.
	config.Clusters["other"] = &clientcmdapi.Cluster{Server: "https://192.0.2.9:6443/x"}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func kubectlRaw(t *testing.T, kubeconfig, context string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), kubeapi.Program(t), "kubectl", "--kubeconfig", kubeconfig, "--context", context, "get", "--raw", "/api")
	command.Env = []string{"HOME=" + t.TempDir()}
	out, err := command.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestKubectlReachesEveryPlaceThroughEveryMember(t *testing.T) {
	members, ca, servers := standIns(t, "hub-a", "hub-b")
	path := writeFleetConfig(t, members, ca)
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"clusters/fleet", "clusters/fleet@hub-a", "clusters/fleet@hub-b", "fleet", "fleet@hub-a", "fleet@hub-b", "hub", "hub@hub-a", "hub@hub-b",
		"north-1", "north-1@hub-a", "north-1@hub-b", "pay/ledger", "pay/ledger@hub-a", "pay/ledger@hub-b"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(config.Contexts))); diff != "" {
		t.Errorf("contexts (-want +got):\n%s", diff)
	}
	if got := config.Contexts["pay/ledger"].Namespace; got != "pay" {
		t.Errorf("the application's context is in namespace %q", got)
	}
	says := func(context, want string) {
		t.Helper()
		if got, err := kubectlRaw(t, path, context); err != nil || got != want+" Bearer ann's" {
			t.Errorf("%s: %v: %s, want %s", context, err, got, want)
		}
	}
	says("pay/ledger", "hub-a /applications/pay/ledger/api")
	says("north-1@hub-b", "hub-b /clusters/north-1/api")

	servers[0].Close()
	if got, err := kubectlRaw(t, path, "pay/ledger"); err == nil {
		t.Errorf("a member that is gone answers %s", got)
	}
	says("pay/ledger@hub-b", "hub-b /applications/pay/ledger/api") // without changing anything
	var out bytes.Buffer
	command := newCommand()
	command.SetArgs([]string{"kubeconfig", "--refresh", path})
	command.SetOut(&out)
	if err := command.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "5 contexts changed") {
		t.Fatalf("refresh: %v: %s", err, out.String())
	}
	says("pay/ledger", "hub-b /applications/pay/ledger/api")
	says("fleet", "hub-b /fleet/api")
	mended, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := mended.Clusters["other"].Server; got != "https://192.0.2.9:6443/x" {
		t.Errorf("another system's server became %s", got)
	}
	if got := mended.Clusters["hub@hub-a"].Server; got != "https://"+members[0].Server {
		t.Errorf("the context of one member became %s", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v: %v", info.Mode(), err)
	}
	servers[1].Close()
	command.SetArgs([]string{"kubeconfig", "--refresh", path})
	if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "no hub member answers") {
		t.Errorf("refresh without a member: %v", err)
	}
}

func TestTheHubIsFoundThroughTheMembersOfTheKubeconfig(t *testing.T) {
	t.Setenv("TRIPOD_HUB", "")
	members, ca, servers := standIns(t, "hub-a", "hub-b")
	servers[0].Close()
	door := connection{kubeconfig: writeFleetConfig(t, members, ca)}
	config, err := door.restConfig()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := config.Dial(t.Context(), "tcp", "ignored:1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != members[1].Server {
		t.Errorf("connected to %s, want %s", got, members[1].Server)
	}
}
