package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// pair is two real API servers, with a door in front of both and one application
// that is active in the one or in the other.
type pair struct {
	t       *testing.T
	door    *httptest.Server
	clients map[string]*kubernetes.Clientset // straight to the API servers
	agents  map[string]string                // addresses of what stands for the agents
	// power is that of north-1's center.
	power *power

	mu      sync.Mutex
	dataset *v1alpha1.Dataset
	gone    error
	// early is sent to when a write asks while a role changes.
	early chan struct{}
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, clients: map[string]*kubernetes.Clientset{}, agents: map[string]string{}, power: newPower()}
	for _, name := range []string{"north-1", "north-2"} {
		config := kubeapi.Start(t)
		p.clients[name] = kubernetes.NewForConfigOrDie(config)
		agent := agentOf(t, config)
		if name == "north-1" {
			agent = p.power.before(agent)
		}
		p.agents[name] = served(t, agent)
	}
	p.open()
	return p
}

// open opens the door before the two agents.
func (p *pair) open() {
	t := p.t
	t.Helper()
	p.early, p.dataset = make(chan struct{}, 1), datasetAt("db", "north-1", v1alpha1.DatasetSteady)
	routes, err := New(Config{
		Dialer: p, Clusters: clusters{"north-1": accepted("north-1"), "north-2": accepted("north-2")}, Applications: p, Fleet: http.NotFoundHandler(),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- routes.Run(ctx) }()
	master := &user.DefaultInfo{Name: "ann", Groups: []string{"system:masters", "system:authenticated"}}
	p.door = chained(&member{t: t, routes: routes, person: master}, &record{}, func(a authorizer.Attributes) bool {
		return a.GetResource() == "applications" && a.GetSubresource() == "proxy" && a.GetNamespace() == "pay" && a.GetName() == "ledger"
	})
	t.Cleanup(func() {
		p.door.CloseClientConnections()
		p.door.Close()
		cancel()
		<-done
		routes.Close()
	})
}

// agentOf does what an agent does for the tunnel: it adds its own credentials.
func agentOf(t *testing.T, config *rest.Config) http.Handler {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
}

// served is the address at which handler answers.
func served(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}

// Dial implements Dialer.
func (p *pair) Dial(ctx context.Context, cluster string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", p.agents[cluster])
}

// Standing implements Applications.
func (p *pair) Standing(_ context.Context, namespace, name string, strict bool) (Standing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if namespace != "pay" || name != "ledger" {
		return Standing{}, ErrNoSuchApplication
	}
	if strict && p.dataset.Status.Phase != v1alpha1.DatasetSteady {
		select {
		case p.early <- struct{}{}:
		default:
		}
	}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ApplicationSpec{Datasets: []string{"db"}}}
	return Standing{Application: app, Datasets: []*v1alpha1.Dataset{p.dataset}, Serials: map[string]uint64{"north-1": 101, "north-2": 102}}, p.gone
}

func (p *pair) set(primary string, phase v1alpha1.DatasetPhase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dataset = datasetAt("db", primary, phase)
}

func (p *pair) config() *rest.Config {
	return &rest.Config{Host: p.door.URL + "/applications/pay/ledger", QPS: -1}
}

// eventually waits for check to answer "".
func eventually(t *testing.T, what string, check func() string) {
	t.Helper()
	deadline, tick := time.NewTimer(patience), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for last := check(); last != ""; last = check() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: still %s", what, last)
		case <-tick.C:
		}
	}
}

// TestAnApplicationAcrossASwitch runs against two API servers whose
// resourceVersions run through the same numbers.
func TestAnApplicationAcrossASwitch(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two API servers")
	}
	p := newPair(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"an informer ends with the objects of the new cluster", testInformer},
		{"versions of the other cluster are too old, or in conflict", testForeignVersions},
		{"a list in pages ends with the cluster that began it", testForeignContinue},
		{"writes wait while a role changes, and reads go on", testUnsettledWrites},
		{"apply and rollout status in a loop come through", testPipeline},
		{"what is under way when a center loses its power comes through", testPowerLoss},
		{"no application", testNoApplication},
	} {
		p.set("north-1", v1alpha1.DatasetSteady)
		t.Run(test.name, func(t *testing.T) { test.run(t, p) })
	}
}

func (p *pair) configMap(t *testing.T, cluster, namespace, name string) {
	t.Helper()
	client := p.clients[cluster].CoreV1()
	_, err := client.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"cluster": cluster}}
	if _, err := client.ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func testInformer(t *testing.T, p *pair) {
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		t.Run(encoding, func(t *testing.T) {
			p.set("north-1", v1alpha1.DatasetSteady)
			namespace := "informer-json"
			if strings.Contains(encoding, "protobuf") {
				namespace = "informer-protobuf"
			}
			p.configMap(t, "north-1", namespace, "only-1")
			p.configMap(t, "north-1", namespace, "both")
			p.configMap(t, "north-2", namespace, "both")
			p.configMap(t, "north-2", namespace, "only-2")
			config := p.config()
			config.ContentType = encoding
			ctx, cancel := context.WithCancel(t.Context())
			factory := informers.NewSharedInformerFactoryWithOptions(kubernetes.NewForConfigOrDie(config), 0, informers.WithNamespace(namespace))
			lister, informer := factory.Core().V1().ConfigMaps().Lister(), factory.Core().V1().ConfigMaps().Informer()
			_ = informer.SetWatchErrorHandler(func(*cache.Reflector, error) {}) // what ends a watch is expected
			factory.Start(ctx.Done())
			defer factory.Shutdown()
			defer cancel()
			held := func(want ...string) func() string {
				return func() string {
					objects, err := lister.ConfigMaps(namespace).List(labels.Everything())
					var got []string
					for _, o := range objects {
						got = append(got, o.Name+"@"+o.Data["cluster"])
					}
					slices.Sort(got)
					if diff := cmp.Diff(want, got); diff != "" || err != nil {
						return fmt.Sprint(diff, err)
					}
					return ""
				}
			}
			eventually(t, "the first cluster's objects", held("both@north-1", "only-1@north-1"))
			p.configMap(t, "north-1", namespace, "watched")
			eventually(t, "an object that is watched", held("both@north-1", "only-1@north-1", "watched@north-1"))
			p.set("north-2", v1alpha1.DatasetFencing)
			eventually(t, "the second cluster's objects", held("both@north-2", "only-2@north-2"))
			p.set("north-2", v1alpha1.DatasetSteady)
			p.configMap(t, "north-2", namespace, "watched")
			eventually(t, "an object that is watched there", held("both@north-2", "only-2@north-2", "watched@north-2"))
			p.set("north-1", v1alpha1.DatasetSteady)
			eventually(t, "back again", held("both@north-1", "only-1@north-1", "watched@north-1"))
		})
	}
}

func testForeignVersions(t *testing.T, p *pair) {
	p.configMap(t, "north-1", "versions", "a")
	p.configMap(t, "north-2", "versions", "a")
	maps := kubernetes.NewForConfigOrDie(p.config()).CoreV1().ConfigMaps("versions")
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatal(err)
	}
	one := &list.Items[0]
	if one, err = maps.Update(t.Context(), one, metav1.UpdateOptions{}); err != nil {
		t.Fatalf("an update with the version of the cluster: %v", err)
	}
	direct, err := p.clients["north-1"].CoreV1().ConfigMaps("versions").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || one.ResourceVersion != direct.ResourceVersion+stamp(101) {
		t.Fatalf("the version %s shows as %s: %v", direct.ResourceVersion, one.ResourceVersion, err)
	}
	p.set("north-2", v1alpha1.DatasetSteady)
	if _, err := maps.List(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}); !apierrors.IsResourceExpired(err) {
		t.Errorf("list: %v, want that it is expired", err)
	}
	if _, err := maps.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion}); !apierrors.IsResourceExpired(err) {
		t.Errorf("watch: %v, want that it is expired", err)
	}
	if _, err := maps.Update(t.Context(), one, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("update: %v, want a conflict", err)
	}
	patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"data":{"x":"y"}}`, one.ResourceVersion)
	if _, err := maps.Patch(t.Context(), "a", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("patch: %v, want a conflict", err)
	}
	if err := maps.Delete(t.Context(), "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &one.ResourceVersion}}); !apierrors.IsConflict(err) {
		t.Errorf("delete: %v, want a conflict", err)
	}
	after, err := p.clients["north-2"].CoreV1().ConfigMaps("versions").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || after.Data["x"] != "" || after.Data["cluster"] != "north-2" {
		t.Errorf("the other cluster's object is %v: %v", after, err)
	}
}

func testForeignContinue(t *testing.T, p *pair) {
	for _, name := range []string{"a", "b", "c"} {
		p.configMap(t, "north-1", "pages", name)
	}
	maps := kubernetes.NewForConfigOrDie(p.config()).CoreV1().ConfigMaps("pages")
	first, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil || first.Continue == "" {
		t.Fatalf("%v: %+v", err, first)
	}
	second, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1, Continue: first.Continue})
	if err != nil || len(second.Items) != 1 || second.Items[0].Name != "b" {
		t.Fatalf("%v: %+v", err, second)
	}
	p.set("north-2", v1alpha1.DatasetSteady)
	if _, err := maps.List(t.Context(), metav1.ListOptions{Limit: 1, Continue: second.Continue}); !apierrors.IsResourceExpired(err) {
		t.Errorf("the third page: %v, want that it is expired", err)
	}
}

func (p *pair) post(t *testing.T, path, body string) (*http.Response, metav1.Status) {
	t.Helper()
	response, err := http.Post(p.door.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var status metav1.Status
	_ = json.Unmarshal(text, &status)
	return response, status
}

func testUnsettledWrites(t *testing.T, p *pair) {
	const namespaces = "/applications/pay/ledger/api/v1/namespaces"
	for _, phase := range []v1alpha1.DatasetPhase{v1alpha1.DatasetClosing, v1alpha1.DatasetFencing, v1alpha1.DatasetPromoting} {
		p.set("north-2", phase)
		response, status := p.post(t, namespaces, `{"metadata":{"name":"early"}}`)
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || status.Details == nil || status.Details.RetryAfterSeconds == 0 || !strings.Contains(status.Message, "dataset db is being") {
			t.Errorf("a write while %s: %d %v %+v", phase, response.StatusCode, response.Header, status)
		}
		if _, err := kubernetes.NewForConfigOrDie(p.config()).CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Errorf("a read while %s: %v", phase, err)
		}
		review := `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`
		if response, status := p.post(t, "/applications/pay/ledger/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review); response.StatusCode != http.StatusCreated {
			t.Errorf("a question while %s: %d %+v", phase, response.StatusCode, status)
		}
	}
	<-p.early
	// client-go waits by itself: the write that comes early is done, once.
	created := make(chan error, 1)
	p.set("north-2", v1alpha1.DatasetPromoting)
	go func() {
		client := kubernetes.NewForConfigOrDie(p.config())
		_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "patient"}}, metav1.CreateOptions{})
		created <- err
	}()
	select {
	case err := <-created:
		t.Fatalf("the write did not wait: %v", err)
	case <-p.early:
	}
	p.set("north-2", v1alpha1.DatasetSteady)
	if err := <-created; err != nil {
		t.Errorf("the write that waited: %v", err)
	}
	if _, err := p.clients["north-2"].CoreV1().Namespaces().Get(t.Context(), "patient", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	p.gone = errors.New("no majority")
	p.mu.Unlock()
	response, status := p.post(t, namespaces, `{"metadata":{"name":"blind"}}`)
	p.mu.Lock()
	p.gone = nil
	p.mu.Unlock()
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(status.Message, "no majority") {
		t.Errorf("a write while nobody knows: %d %+v", response.StatusCode, status)
	}
}

func testNoApplication(t *testing.T, p *pair) {
	if response, status := p.post(t, "/applications/pay/other/api/v1/namespaces", `{}`); response.StatusCode != http.StatusForbidden {
		t.Errorf("an application without a rule: %d %+v", response.StatusCode, status)
	}
}

const pipelineManifest = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"api","namespace":"pipeline"},
"spec":{"replicas":1,"selector":{"matchLabels":{"app":"api"}},"template":{"metadata":{"labels":{"app":"api","round":"ROUND"}},
"spec":{"containers":[{"name":"api","image":"api"}]}}}}`

// testPipeline: a script that loops over apply and rollout status, and knows
// nothing of clusters, ends with its last manifest in the cluster that is active.
func testPipeline(t *testing.T, p *pair) {
	for _, cluster := range []string{"north-1", "north-2"} {
		p.configMap(t, cluster, "pipeline", "any")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var controllers sync.WaitGroup
	for _, client := range p.clients {
		controllers.Go(func() { runDeployments(ctx, client, "pipeline") })
	}
	defer controllers.Wait()
	defer cancel()
	folder := t.TempDir()
	for round, change := range []func(){
		func() {},
		func() { p.set("north-1", v1alpha1.DatasetClosing) },
		func() { p.set("north-2", v1alpha1.DatasetFencing) },
		func() { p.set("north-2", v1alpha1.DatasetSteady) },
		func() {},
	} {
		manifest := filepath.Join(folder, "deployment.json")
		if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(pipelineManifest, "ROUND", fmt.Sprint(round))), 0o600); err != nil {
			t.Fatal(err)
		}
		change()
		select {
		case <-p.early: // of the round before
		default:
		}
		settled := make(chan struct{})
		if round == 1 || round == 2 {
			// The next step of the failover comes while kubectl waits.
			go func() {
				defer close(settled)
				select {
				case <-p.early:
				case <-ctx.Done():
				}
				if round == 1 {
					p.set("north-2", v1alpha1.DatasetFencing)
				}
				p.set("north-2", v1alpha1.DatasetSteady)
			}()
		} else {
			close(settled)
		}
		p.kubectl(t, "apply", "--server-side", "-f", manifest)
		p.kubectl(t, "rollout", "status", "--timeout=60s", "-n", "pipeline", "deployment/api")
		<-settled
	}
	last, err := p.clients["north-2"].AppsV1().Deployments("pipeline").Get(t.Context(), "api", metav1.GetOptions{})
	if err != nil || last.Spec.Template.Labels["round"] != "4" {
		t.Errorf("the active cluster has round %v: %v", last.Spec.Template.Labels, err)
	}
}

func (p *pair) kubectl(t *testing.T, args ...string) {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(t.Context(), kubeapi.Program(t), append([]string{"kubectl", "--server", p.config().Host, "--cache-dir", home}, args...)...)
	command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, output)
	}
}

// runDeployments does what the deployment controller and the nodes would, until
// ctx ends: what is asked for is there.
func runDeployments(ctx context.Context, client *kubernetes.Clientset, namespace string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d, err := client.AppsV1().Deployments(namespace).Get(ctx, "api", metav1.GetOptions{})
		if err != nil || d.Status.ObservedGeneration == d.Generation {
			continue
		}
		d.Status.ObservedGeneration = d.Generation
		d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = 1, 1, 1, 1
		_, _ = client.AppsV1().Deployments(namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{}) // it tries again
	}
}
