package scenario

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guest is a namespace that the gateway's tests own, in the hub and in clusters,
// and every name they use. It is another one in every run: a namespace takes
// seconds to go, and no test needs to wait for that.
var guest = fmt.Sprintf("guest-%d", time.Now().Unix())

// TestGateway is a person with kubectl: the hub, one cluster through the tunnel,
// and the whole fleet.
func TestGateway(t *testing.T) {
	f := fleet(t)
	t.Run("the fleet lists what is in every cluster, with the cluster in front", func(t *testing.T) { fleetTable(t, f) })
	t.Run("the fleet's watch tells of a change in a cluster", func(t *testing.T) { fleetWatch(t, f) })
	t.Run("exec carries input, output, errors and the exit code", func(t *testing.T) { execInto(t, f) })
	t.Run("cp there and back keeps every byte", func(t *testing.T) { copyThereAndBack(t, f) })
	t.Run("port-forward serves several connections", func(t *testing.T) { forward(t, f) })
	t.Run("debug adds a container to a pod that runs, and attaches to it", func(t *testing.T) { debugPod(t, f) })
	t.Run("logs are a cluster's", func(t *testing.T) { logs(t, f) })
	t.Run("apply, wait and delete in one cluster", func(t *testing.T) { applyInOne(t, f) })
	t.Run("a person may reach the clusters that the hub's RBAC names, as themselves", func(t *testing.T) { personOfOneCluster(t, f) })
	t.Run("the hub behaves as a Kubernetes API", func(t *testing.T) { hubAsKubernetes(t, f) })
	t.Run("a service account's token works at the hub", func(t *testing.T) { serviceAccount(t, f) })
}

func fleetTable(t *testing.T, f *Fleet) {
	out := must(t)(f.Kubectl(t.Context(), nil, "--context", "fleet", "get", "pods", "-A"))
	header, rows, _ := strings.Cut(out, "\n")
	if got := strings.Fields(header); len(got) < 3 || got[0] != "NAMESPACE" || got[1] != "CLUSTER" {
		t.Errorf("the header is %q, wants NAMESPACE CLUSTER NAME …", header)
	}
	databases := map[string]int{}
	for line := range strings.Lines(rows) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "ledger-db-0" {
			databases[fields[1]]++
		}
	}
	for _, c := range f.Lab.Centers() {
		if databases[c.Name] != 1 {
			t.Errorf("%d rows of ledger-db-0 in %s, wants 1:\n%s", databases[c.Name], c.Name, out)
		}
	}
	if _, err := f.Kubectl(t.Context(), nil, "--context", "fleet", "-n", "pay", "delete", "pod", "ledger-db-0"); err == nil {
		t.Error("a pod was deleted through the fleet, which is read-only")
	}
}

func fleetWatch(t *testing.T, f *Fleet) {
	t.Cleanup(func() { dropGuest(t, f, "south-1") })
	must(t)(f.Kubectl(t.Context(), nil, "--context", "south-1", "create", "namespace", guest))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	events, end := follow(ctx, t, f, "--context", "fleet", "-n", guest, "get", "configmaps", "--watch",
		"-o", `jsonpath={.metadata.annotations.tripod\.dev/cluster} {.metadata.name}{"\n"}`)
	defer end()
	must(t)(f.Kubectl(t.Context(), nil, "--context", "south-1", "-n", guest, "create", "configmap", "seen-by-the-fleet"))
	for events.Scan() {
		if events.Text() == "south-1 seen-by-the-fleet" {
			return
		}
	}
	t.Errorf("the watch ended before it told of the new config map: %v", ctx.Err())
}

func execInto(t *testing.T, f *Fleet) {
	for _, c := range f.Lab.Centers() {
		out, err := f.Kubectl(t.Context(), strings.NewReader("to the pod\n"), "--context", c.Name, "-n", "pay",
			"exec", "-i", "-c", "database", "ledger-db-0", "--", "sh", "-c", "cat; echo complaint >&2; exit 7")
		if out != "to the pod\n" {
			t.Errorf("%s: exec wrote %q, wants what it read", c.Name, out)
		}
		if err == nil || !strings.Contains(err.Error(), "complaint") || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("%s: exec: %v, wants its standard error and exit code 7", c.Name, err)
		}
	}
}

func copyThereAndBack(t *testing.T, f *Fleet) {
	sent := make([]byte, 4<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	there, back := filepath.Join(t.TempDir(), "there"), filepath.Join(t.TempDir(), "back")
	if err := os.WriteFile(there, sent, 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl := func(arguments ...string) {
		t.Helper()
		must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "south-1", "-n", "pay"}, arguments...)...))
	}
	kubectl("cp", "-c", "database", there, "ledger-db-0:/tmp/there")
	kubectl("cp", "-c", "database", "ledger-db-0:/tmp/there", back)
	kubectl("exec", "-c", "database", "ledger-db-0", "--", "rm", "/tmp/there")
	got, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, wants the %d that were sent (%v)", len(got), len(sent), err)
	}
}

func forward(t *testing.T, f *Fleet) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	lines, end := follow(ctx, t, f, "--context", "north-2", "-n", "pay", "port-forward", "deployment/ledger-api", ":8080")
	defer end()
	var port string
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Forwarding from 127.0.0.1:"); ok {
			port, _, _ = strings.Cut(rest, " ")
			break
		}
	}
	if port == "" {
		t.Fatalf("port-forward never said where it listens: %v", ctx.Err())
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	errs := make(chan error)
	const connections = 5
	for range connections {
		go func() { errs <- fetch(ctx, &client, "http://127.0.0.1:"+port+"/healthz") }()
	}
	for range connections {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func fetch(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}

// debugPod debugs a pod without a shell with the database's image, which every node has.
func debugPod(t *testing.T, f *Fleet) {
	namespace := guest + "-debug" // that of the other tests may be going
	t.Cleanup(func() { drop(t, f, "south-1", "namespace/"+namespace) })
	kubectl := func(arguments ...string) string {
		t.Helper()
		return must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "south-1"}, arguments...)...))
	}
	image := kubectl("-n", "pay", "get", "pod", "ledger-db-0", "-o", `jsonpath={.spec.containers[?(@.name=="database")].image}`)
	kubectl("create", "namespace", namespace)
	kubectl("-n", namespace, "run", "shellless", "--image", "tripod.dev/pause:dev", "--image-pull-policy", "IfNotPresent")
	kubectl("-n", namespace, "wait", "pod/shellless", "--for", "condition=Ready", "--timeout", "60s")
	// kubectl ends when its input does, whatever the container still has to say:
	// the input stays open until the answer is there.
	input, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines, end := f.start(ctx, t, input, "kubernode", "kubectl", "--context", "south-1", "-n", namespace, "debug", "shellless", "-i", "--quiet",
		"--image", image, "--image-pull-policy", "IfNotPresent", "--container", "debugger", "--target", "shellless", "--", "sh", "-c", "cat")
	defer end()
	_ = input.Close() // kubectl has its own
	if _, err := typed.WriteString("to the debugger\n"); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines.Scan() {
		if said = append(said, lines.Text()); lines.Text() == "to the debugger" {
			return
		}
	}
	t.Errorf("the debugger wrote %q, want what it read", said)
}

func logs(t *testing.T, f *Fleet) {
	for _, c := range f.Lab.Centers() {
		out := must(t)(f.Kubectl(t.Context(), nil, "--context", c.Name, "-n", "pay", "logs", "ledger-db-0", "-c", "database", "--tail", "3"))
		if strings.Count(out, "\n") != 3 {
			t.Errorf("%s: the last 3 lines of the log are %q", c.Name, out)
		}
	}
}

func applyInOne(t *testing.T, f *Fleet) {
	t.Cleanup(func() { dropGuest(t, f, "north-2") })
	must(t)(f.Kubectl(t.Context(), nil, "--context", "north-2", "create", "namespace", guest))
	must(t)(f.Kubectl(t.Context(), strings.NewReader(note("one")), "--context", "north-2", "apply", "--server-side", "-f", "-"))
	must(t)(f.Kubectl(t.Context(), nil, "--context", "north-2", "-n", guest, "wait", "--for", "jsonpath={.data.text}=one", "configmap/note", "--timeout", "10s"))
	straight := must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-north-2", "-n", guest, "get", "configmap", "note", "-o", "jsonpath={.data.text}"))
	if straight != "one" {
		t.Errorf("straight from the cluster the note is %q", straight)
	}
	if out, err := f.Kubectl(t.Context(), nil, "--context", "south-1", "-n", guest, "get", "configmap", "note"); err == nil {
		t.Errorf("what was made in north-2 is in south-1, too: %s", out)
	}
	must(t)(f.Kubectl(t.Context(), nil, "--context", "north-2", "-n", guest, "delete", "configmap", "note"))
}

func note(text string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: %s}\ndata: {text: %q}\n", guest, text)
}

// personOfOneCluster: the hub lets ann through to south-1 only, and there the
// cluster's own RBAC judges her.
func personOfOneCluster(t *testing.T, f *Fleet) {
	const ann = "ann"
	role := guest
	t.Cleanup(func() {
		for _, where := range []string{"hub", "south-1"} {
			drop(t, f, where, "clusterrolebinding/"+role, "clusterrole/"+role)
		}
	})
	hub := func(arguments ...string) (string, error) {
		return f.Kubectl(t.Context(), nil, append([]string{"--context", "hub"}, arguments...)...)
	}
	must(t)(f.Kubectl(t.Context(), strings.NewReader(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: `+role+`}
rules:
- {apiGroups: [tripod.dev], resources: [clusters/proxy], resourceNames: [south-1], verbs: [get]}
`), "--context", "hub", "create", "-f", "-"))
	must(t)(hub("create", "clusterrolebinding", role, "--clusterrole", role, "--user", ann))
	as := func(cluster string, arguments ...string) (string, error) {
		return f.Kubectl(t.Context(), nil, append([]string{"--context", cluster, "--as", ann}, arguments...)...)
	}
	refused := func(out string, err error, wants ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("answered %q, wants a refusal", out)
			return
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("refused with %v, which does not name %s", err, want)
			}
		}
	}
	out, err := as("north-1", "get", "--raw", "/api/v1/namespaces/pay/pods")
	refused(out, err, "clusters/proxy", "north-1", ann)
	out, err = as("south-1", "get", "--raw", "/api/v1/namespaces/pay/pods")
	refused(out, err, "pods", ann)
	must(t)(f.Kubectl(t.Context(), nil, "--context", "south-1", "create", "clusterrole", role, "--verb", "get,list", "--resource", "pods"))
	must(t)(f.Kubectl(t.Context(), nil, "--context", "south-1", "create", "clusterrolebinding", role, "--clusterrole", role, "--user", ann))
	awaitPods := func(ctx context.Context) (string, error) {
		_, err := f.Kubectl(ctx, nil, "--context", "south-1", "--as", ann, "get", "--raw", "/api/v1/namespaces/pay/pods")
		return "", err
	}
	if err := f.await(t.Context(), 10*time.Second, "ann may list pods of south-1", awaitPods); err != nil {
		t.Error(err)
	}
	whoami := must(t)(f.Kubectl(t.Context(), nil, "--context", "north-2", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"))
	if !strings.HasPrefix(whoami, "tripod:admin ") || !strings.Contains(whoami, "system:masters") {
		t.Errorf("north-2 says that the administrator is %q, wants tripod:admin with the groups the hub gives", whoami)
	}
}

func hubAsKubernetes(t *testing.T, f *Fleet) {
	t.Cleanup(func() { dropGuest(t, f, "hub") })
	hub := func(arguments ...string) string {
		t.Helper()
		return must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "hub"}, arguments...)...))
	}
	hub("create", "namespace", guest)
	must(t)(f.Kubectl(t.Context(), strings.NewReader(note("first")), "--context", "hub", "apply", "--server-side", "-f", "-"))
	out, err := f.Kubectl(t.Context(), strings.NewReader(note("second")), "--context", "hub", "diff", "--server-side", "-f", "-")
	if err == nil || !strings.Contains(out, "+  text: second") {
		t.Errorf("diff: %v, %q: wants exit code 1 and the new text", err, out)
	}
	t.Setenv("KUBE_EDITOR", "sed -i s/first/edited/")
	hub("edit", "-n", guest, "configmap", "note")
	hub("wait", "-n", guest, "--for", "jsonpath={.data.text}=edited", "configmap/note", "--timeout", "10s")
	if out := hub("explain", "placement.spec.replicas.strategy"); !strings.Contains(out, "Duplicate") {
		t.Errorf("explain does not know the strategies:\n%s", out)
	}
	hub("wait", "--for", "condition=Ready", "clusters", "--all", "--timeout", "10s")
	hub("delete", "-n", guest, "configmap", "note")
	hub("delete", "namespace", guest, "--timeout", "60s")
}

func serviceAccount(t *testing.T, f *Fleet) {
	t.Cleanup(func() {
		dropGuest(t, f, "hub")
		drop(t, f, "hub", "clusterrolebinding/"+guest)
	})
	hub := func(arguments ...string) string {
		t.Helper()
		return strings.TrimSpace(must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "hub"}, arguments...)...)))
	}
	hub("create", "namespace", guest)
	path := serviceAccountKubeconfig(t, f, guest, "robot")
	hub("create", "clusterrolebinding", guest, "--clusterrole", "tripod:viewer", "--serviceaccount", guest+":robot")
	robot := func(arguments ...string) (string, error) {
		return f.Kubectl(t.Context(), nil, append([]string{"--kubeconfig", path}, arguments...)...)
	}
	err := f.await(t.Context(), 10*time.Second, "the service account may read clusters", func(context.Context) (string, error) {
		out, err := robot("get", "clusters", "-o", "name")
		if err == nil && strings.Count(out, "\n") != len(f.Lab.Centers()) {
			return fmt.Sprintf("it sees %q", out), nil
		}
		return "", err
	})
	if err != nil {
		t.Error(err)
	}
	if out, err := robot("get", "secrets", "-n", "pay"); err == nil {
		t.Errorf("a viewer of Tripod's kinds reads secrets: %s", out)
	}
	if out, err := robot("get", "--raw", "/clusters/south-1/api/v1/namespaces"); err == nil {
		t.Errorf("a service account without a right to it reached a cluster: %s", out)
	}
}

// serviceAccountKubeconfig makes a service account in a namespace of the hub and
// returns a kubeconfig with its token alone: a client certificate would win.
func serviceAccountKubeconfig(t *testing.T, f *Fleet, namespace, name string) string {
	t.Helper()
	hub := func(arguments ...string) string {
		t.Helper()
		return strings.TrimSpace(must(t)(f.Kubectl(t.Context(), nil, append([]string{"--context", "hub"}, arguments...)...)))
	}
	hub("create", "-n", namespace, "serviceaccount", name)
	token := hub("create", "-n", namespace, "token", name)
	server := hub("config", "view", "--minify", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
	authority := hub("config", "view", "--minify", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: hub,
clusters: [{name: hub, cluster: {server: %q, certificate-authority-data: %q}}],
users: [{name: %[4]q, user: {token: %[3]q}}], contexts: [{name: hub, context: {cluster: hub, user: %[4]q}}]}`, server, authority, token, name)
	path := filepath.Join(t.TempDir(), name+".kubeconfig")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// follow starts kubectl and returns what it prints, line by line. end stops it
// and waits for it.
func follow(ctx context.Context, t *testing.T, f *Fleet, arguments ...string) (lines *bufio.Scanner, end func()) {
	t.Helper()
	return f.start(ctx, t, nil, "kubernode", append([]string{"kubectl"}, arguments...)...)
}

// start starts a program, whose input is that file if there is one, and returns all
// that it prints, line by line. end kills it and waits for it.
func (f *Fleet) start(ctx context.Context, t *testing.T, input *os.File, program string, arguments ...string) (lines *bufio.Scanner, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, filepath.Join(f.config.BinDir, program), arguments...)
	cmd.Env = os.Environ()
	for _, v := range f.Lab.Environment() {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	if input != nil {
		cmd.Stdin = input
	}
	out, in, err := os.Pipe()
	if err == nil {
		cmd.Stdout, cmd.Stderr = in, in
		err = cmd.Start()
		_ = in.Close() // the program has its own
	}
	if err != nil {
		cancel()
		t.Fatalf("start %s %v: %v", program, arguments, err)
	}
	return bufio.NewScanner(out), func() {
		cancel()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
		_ = out.Close()
	}
}

// must returns a function that fails the test when a command failed.
func must(t *testing.T) func(out string, err error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// dropGuest deletes the guest namespace; drop any objects, where they are.
func dropGuest(t *testing.T, f *Fleet, where string) { drop(t, f, where, "namespace/"+guest) }

func drop(t *testing.T, f *Fleet, where string, objects ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	arguments := append([]string{"--context", where, "delete", "--ignore-not-found", "--wait=false"}, objects...)
	if _, err := f.Kubectl(ctx, nil, arguments...); err != nil {
		t.Errorf("clean up: %v", err)
	}
}
