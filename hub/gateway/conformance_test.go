package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"tripod.dev/tripod/test/multikind/kubeapi"
)

// TestWhatClientsDoThroughTheGateway repeats behaviours of upstream's
// test/e2e/apimachinery and test/e2e/kubectl (the name before the colon) against
// a real API server, through the tunnel of a real agent and in mode Direct.
//
// Left out: what needs controllers, a scheduler or images (garbage collector,
// quota, kubectl rolling behaviour of workloads: they are the cluster's own work
// and the gateway sees only requests like these).
func TestWhatClientsDoThroughTheGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	r := newRig(t)
	for mode, host := range r.doors {
		c := &caseOf{rig: r, host: host, namespace: "e2e-" + mode}
		if _, err := r.direct.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.startPod(t)
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"server version: should find the server version", c.version},
			{"Discovery: groups and resources are found, and cached", c.discovery},
			{"Watchers: should observe add, update, and delete notifications and restart from the last version", c.watchers},
			{"Servers with support for API chunking: should return chunks", c.chunks},
			{"Servers with support for Table transformation: should return a table, and 406 where there is none", c.tables},
			{"ServerSideApply: should own fields and refuse conflicts", c.serverSideApply},
			{"FieldValidation: should detect unknown fields", c.fieldValidation},
			{"Watch list: should send the state, a bookmark and what follows", c.watchList},
			{"objects of nearly the largest size, in protobuf and JSON", c.large},
			{"compression: should be what the client asked for", c.compression},
			{"timeouts and cancellation: should end on both sides", c.timeouts},
			{"Kubectl: create, label, patch, scale, diff, wait, replace, explain, delete", c.kubectlVerbs},
			{"Kubectl logs, exec and attach: over WebSocket and SPDY", c.kubectlStreams},
			{"Kubectl port-forward: should forward", c.portForward},
			{"Proxy server: kubectl proxy", c.kubectlProxy},
			{"Ephemeral Containers: kubectl debug should run a container in a pod that runs, and attach", c.debug},
			{"Kubectl copy: should copy files to and from a container", c.copyFiles},
			{"Aggregator: should use an aggregated API server, as the person", c.aggregated},
			{"helm install, upgrade, rollback, uninstall", c.helm},
			{"a controller-runtime manager with an election, a cache and a reconciler", c.manager},
		} {
			t.Run(mode+"/"+test.name, test.run)
		}
	}
}

type caseOf struct {
	rig             *rig
	host, namespace string
}

func (c *caseOf) config() *rest.Config { return &rest.Config{Host: c.host, QPS: -1} }

func (c *caseOf) client() *kubernetes.Clientset { return kubernetes.NewForConfigOrDie(c.config()) }

func (c *caseOf) configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace}, Data: data}
}

func (c *caseOf) create(t *testing.T, name string) {
	t.Helper()
	if _, err := c.client().CoreV1().ConfigMaps(c.namespace).Create(t.Context(), c.configMap(name, nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *caseOf) startPod(t *testing.T) {
	t.Helper()
	pods := c.rig.direct.CoreV1().Pods(c.namespace)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "c", Stdin: true}}}}
	pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *caseOf) kubectl(t *testing.T, environment []string, input string, args ...string) string {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(t.Context(), kubeapi.Program(t), append([]string{"kubectl", "--server", c.host, "-n", c.namespace, "--cache-dir", home}, args...)...)
	command.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, environment...)
	command.Stdin = strings.NewReader(input)
	var errors bytes.Buffer
	command.Stderr = &errors
	output, err := command.Output()
	if err != nil {
		t.Errorf("kubectl %v: %v\n%s%s", args, err, output, errors.String())
	}
	return string(output)
}

func (c *caseOf) version(t *testing.T) {
	version, err := c.client().Discovery().ServerVersion()
	if err != nil || version.Major == "" {
		t.Errorf("%v: %v", version, err)
	}
}

func (c *caseOf) discovery(t *testing.T) {
	if got := c.kubectl(t, nil, "", "api-resources", "-o", "name"); !strings.Contains(got, "deployments.apps\n") || !strings.Contains(got, "customresourcedefinitions.apiextensions.k8s.io\n") {
		t.Errorf("the resources are\n%s", got)
	}
	for _, path := range []string{"/openapi/v3", "/openapi/v2", "/apis"} {
		response, err := http.Get(c.host + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		request, _ := http.NewRequestWithContext(t.Context(), "GET", c.host+path, nil)
		request.Header.Set("If-None-Match", response.Header.Get("Etag"))
		again, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = again.Body.Close()
		if response.StatusCode != 200 || response.Header.Get("Etag") != "" && again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: %d, then with its tag %d", path, response.StatusCode, again.StatusCode)
		}
	}
}

func (c *caseOf) watchers(t *testing.T) {
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := c.config()
		config.ContentType = encoding
		maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(c.namespace)
		options := metav1.ListOptions{FieldSelector: "metadata.name=watched"}
		first, err := maps.Watch(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		next := func(w watch.Interface, want watch.EventType) *corev1.ConfigMap {
			t.Helper()
			event, open := <-w.ResultChan()
			object, ok := event.Object.(*corev1.ConfigMap)
			if !open || event.Type != want || !ok {
				t.Fatalf("%s: got %+v, want %s", encoding, event, want)
			}
			return object
		}
		object, err := maps.Create(t.Context(), c.configMap("watched", nil), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := next(first, watch.Added)
		first.Stop()
		object.Data = map[string]string{"a": "b"}
		if _, err = maps.Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := maps.Delete(t.Context(), "watched", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		options.ResourceVersion = seen.ResourceVersion
		second, err := maps.Watch(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		next(second, watch.Modified)
		next(second, watch.Deleted)
		second.Stop()
	}
}

func (c *caseOf) chunks(t *testing.T) {
	for i := range 5 {
		c.create(t, fmt.Sprint("chunk-", i))
	}
	options, total, pages := metav1.ListOptions{Limit: 2}, 0, 0
	for {
		list, err := c.client().CoreV1().ConfigMaps(c.namespace).List(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		pages, total = pages+1, total+len(list.Items)
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if total < 5 || pages < 3 {
		t.Errorf("%d objects in %d pages", total, pages)
	}
}

func (c *caseOf) get(t *testing.T, path string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", c.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func (c *caseOf) tables(t *testing.T) {
	asTable := http.Header{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}}
	var table metav1.Table
	if _, body := c.get(t, "/api/v1/namespaces/"+c.namespace+"/pods", asTable); json.Unmarshal(body, &table) != nil || len(table.Rows) != 1 || len(table.ColumnDefinitions) == 0 {
		t.Errorf("the table is %s", body)
	}
	if response, _ := c.get(t, "/api/v1/namespaces/"+c.namespace+"/pods", http.Header{"Accept": {"application/json;as=Nothing;v=v1;g=meta.k8s.io"}}); response.StatusCode != http.StatusNotAcceptable {
		t.Errorf("a form that does not exist: %d", response.StatusCode)
	}
}

func (c *caseOf) serverSideApply(t *testing.T) {
	maps := c.client().CoreV1().ConfigMaps(c.namespace)
	one := applycorev1.ConfigMap("applied", c.namespace).WithData(map[string]string{"a": "1"})
	if _, err := maps.Apply(t.Context(), one, metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		t.Fatal(err)
	}
	two := applycorev1.ConfigMap("applied", c.namespace).WithData(map[string]string{"a": "2"})
	if _, err := maps.Apply(t.Context(), two, metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		t.Errorf("another's field: %v", err)
	}
	if got, err := maps.Apply(t.Context(), two, metav1.ApplyOptions{FieldManager: "two", Force: true}); err != nil || got.Data["a"] != "2" {
		t.Errorf("forced: %v", err)
	}
}

func (c *caseOf) fieldValidation(t *testing.T) {
	_, err := c.client().CoreV1().ConfigMaps(c.namespace).Patch(t.Context(), "applied", types.MergePatchType, []byte(`{"unknown":1}`), metav1.PatchOptions{FieldValidation: "Strict"})
	if !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
		t.Errorf("an unknown field: %v", err)
	}
}

func (c *caseOf) watchList(t *testing.T) {
	yes := true
	w, err := c.client().CoreV1().ConfigMaps(c.namespace).Watch(t.Context(), metav1.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	added := 0
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Added:
			added++
		case watch.Bookmark:
			if object := event.Object.(*corev1.ConfigMap); object.Annotations[metav1.InitialEventsAnnotationKey] != "true" || added < 5 {
				t.Errorf("after %d objects the bookmark %v", added, object.Annotations)
			}
			return
		default:
			t.Fatalf("%+v", event)
		}
	}
	t.Error("the watch ended before the bookmark")
}

func (c *caseOf) large(t *testing.T) {
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := c.config()
		config.ContentType = encoding
		maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(c.namespace)
		big := c.configMap("large", map[string]string{"a": strings.Repeat("x", 1000*1000)})
		if _, err := maps.Create(t.Context(), big, metav1.CreateOptions{}); err != nil {
			t.Errorf("%s: %v", encoding, err)
			continue
		}
		if got, err := maps.Get(t.Context(), "large", metav1.GetOptions{}); err != nil || got.Data["a"] != big.Data["a"] {
			t.Errorf("%s: came back differently: %v", encoding, err)
		}
		if err := maps.Delete(t.Context(), "large", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		big.Data["a"] = strings.Repeat("x", 4<<20)
		if _, err := maps.Create(t.Context(), big, metav1.CreateOptions{}); !apierrors.IsRequestEntityTooLargeError(err) {
			t.Errorf("%s: more than an API server takes: %v", encoding, err)
		}
	}
}

func (c *caseOf) compression(t *testing.T) {
	response, body := c.get(t, "/openapi/v2", http.Header{"Accept-Encoding": {"gzip"}})
	if response.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("headers %v", response.Header)
	}
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(reader); err != nil || !json.Valid(plain) {
		t.Errorf("%d bytes of JSON: %v", len(plain), err)
	}
	if response, _ := c.get(t, "/openapi/v2", http.Header{}); response.Header.Get("Content-Encoding") != "" {
		t.Errorf("headers %v for a client that did not ask", response.Header)
	}
}

func (c *caseOf) timeouts(t *testing.T) {
	one := int64(1)
	w, err := c.client().CoreV1().ConfigMaps(c.namespace).Watch(t.Context(), metav1.ListOptions{TimeoutSeconds: &one, FieldSelector: "metadata.name=never"})
	if err != nil {
		t.Fatal(err)
	}
	for event := range w.ResultChan() {
		t.Errorf("a watch that ends by its time says %+v", event)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, err := c.client().CoreV1().Pods(c.namespace).GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4)
	if _, err := io.ReadFull(logs, buffer); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(logs); err == nil {
		t.Error("a stream that was cancelled ended well")
	}
	_ = logs.Close()
}

// manager runs a controller as people write them.
func (c *caseOf) manager(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	manager, err := ctrl.NewManager(c.config(), ctrl.Options{
		Cache:          cache.Options{DefaultNamespaces: map[string]cache.Config{c.namespace: {}}},
		LeaderElection: true, LeaderElectionID: "e2e", LeaderElectionNamespace: c.namespace, LeaderElectionReleaseOnCancel: true,
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	reconcile := func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
		var object corev1.ConfigMap
		if err := manager.GetClient().Get(ctx, request.NamespacedName, &object); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		if object.Labels["seen"] == "true" {
			return ctrl.Result{}, nil
		}
		before := object.DeepCopy()
		object.Labels = map[string]string{"seen": "true"}
		return ctrl.Result{}, manager.GetClient().Patch(ctx, &object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	}
	if err := ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Named(c.namespace).Complete(reconciler(reconcile)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- manager.Start(ctx) }()
	c.create(t, "reconciled")
	eventually(t, "the controller has seen it", func() string {
		object, err := c.rig.direct.CoreV1().ConfigMaps(c.namespace).Get(t.Context(), "reconciled", metav1.GetOptions{})
		if err != nil || object.Labels["seen"] != "true" {
			return fmt.Sprint(object.Labels, err)
		}
		return ""
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type reconciler func(context.Context, ctrl.Request) (ctrl.Result, error)

func (f reconciler) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	return f(ctx, r)
}
