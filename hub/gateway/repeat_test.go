package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// power is that of a center. While it is off, the requests that off names get no
// answer.
type power struct {
	mu   sync.Mutex
	off  func(*http.Request) bool
	seen []string
	// lost is sent what got no answer.
	lost chan string
	// cuts has the connection end, instead of staying silent.
	cuts bool
}

func newPower() *power { return &power{lost: make(chan string, 16)} }

// fails has requests that off names be lost from now on; nil is none.
func (p *power) fails(off func(*http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = off
}

// before lets requests through to next while the power is on.
func (p *power) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		lost := p.off != nil && p.off(r)
		p.seen = append(p.seen, r.Method+" "+r.URL.Path)
		p.mu.Unlock()
		if !lost {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // it has arrived whole
		p.lost <- r.Method
		if p.cuts {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	})
}

// arrived is every request that came here.
func (p *power) arrived() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// agreeing is an API server that does what it is asked for.
func agreeing(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	body := []byte(`{"metadata":{"name":"a"}}`)
	switch {
	case r.URL.Path == "/api":
		body = []byte(`{"kind":"APIVersions","versions":["v1"]}`)
	case r.Method == http.MethodDelete:
		body = []byte(`{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}
	_, _ = w.Write(body)
}

// calls are what a client may have under way, by the verb of the request. Those that
// are not sent again end with 504.
var calls = []struct {
	name  string
	do    func(context.Context, *kubernetes.Clientset) error
	again bool
}{
	{"get", func(ctx context.Context, c *kubernetes.Clientset) error {
		_, err := c.CoreV1().ConfigMaps("n").Get(ctx, "a", metav1.GetOptions{})
		return err
	}, true},
	{"discovery", func(_ context.Context, c *kubernetes.Clientset) error {
		_, err := c.RESTClient().Get().AbsPath("/api").DoRaw(context.Background())
		return err
	}, true},
	{"update", func(ctx context.Context, c *kubernetes.Clientset) error {
		_, err := c.CoreV1().ConfigMaps("n").Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.UpdateOptions{})
		return err
	}, true},
	{"strategic merge patch", patch(types.StrategicMergePatchType, `{"data":{"x":"y"}}`), true},
	{"merge patch", patch(types.MergePatchType, `{"data":{"x":"y"}}`), true},
	{"server-side apply", patch(types.ApplyYAMLPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"), true},
	{"JSON patch that replaces", patch(types.JSONPatchType, `[{"op":"replace","path":"/data/x","value":"y"}]`), true},
	{"JSON patch that appends", patch(types.JSONPatchType, `[{"op":"add","path":"/metadata/finalizers/-","value":"y"}]`), false},
	{"delete", func(ctx context.Context, c *kubernetes.Clientset) error {
		return c.CoreV1().ConfigMaps("n").Delete(ctx, "a", metav1.DeleteOptions{})
	}, true},
	{"create", func(ctx context.Context, c *kubernetes.Clientset) error {
		_, err := c.BatchV1().Jobs("n").Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
		return err
	}, true},
	{"create with generateName", func(ctx context.Context, c *kubernetes.Clientset) error {
		_, err := c.BatchV1().Jobs("n").Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{GenerateName: "a"}}, metav1.CreateOptions{})
		return err
	}, false},
	{"exec", func(ctx context.Context, c *kubernetes.Clientset) error {
		return c.CoreV1().RESTClient().Post().Namespace("n").Resource("pods").Name("a").SubResource("exec").
			SetHeader("Connection", "Upgrade").SetHeader("Upgrade", "SPDY/3.1").Do(ctx).Error()
	}, false},
	{"post through a service", func(ctx context.Context, c *kubernetes.Clientset) error {
		return c.CoreV1().RESTClient().Post().Namespace("n").Resource("services").Name("a").SubResource("proxy").Suffix("transfers").
			Body([]byte(`{"metadata":{"name":"a"}}`)).Do(ctx).Error()
	}, false},
}

func patch(kind types.PatchType, body string) func(context.Context, *kubernetes.Clientset) error {
	return func(ctx context.Context, c *kubernetes.Clientset) error {
		_, err := c.CoreV1().ConfigMaps("n").Patch(ctx, "a", kind, []byte(body), metav1.PatchOptions{})
		return err
	}
}

// TestWhatIsUnderWayWhenItsClusterIsLost: client-go sends again what may be sent
// again, once, to the cluster that is active then; and what may not it does not.
func TestWhatIsUnderWayWhenItsClusterIsLost(t *testing.T) {
	var clients sync.WaitGroup
	defer clients.Wait() // side by side: client-go waits for seconds
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		for _, cuts := range []bool{false, true} {
			for _, call := range calls {
				name := fmt.Sprintf("%s/cuts=%t/%s", encoding, cuts, call.name)
				lost, heir := newPower(), newPower()
				lost.cuts = cuts
				lost.fails(func(*http.Request) bool { return true })
				p := &pair{t: t, agents: map[string]string{
					"north-1": served(t, lost.before(http.HandlerFunc(agreeing))), "north-2": served(t, heir.before(http.HandlerFunc(agreeing))),
				}}
				p.open()
				config := p.config()
				config.ContentType, config.WarningHandler = encoding, rest.NoWarnings{}
				client := kubernetes.NewForConfigOrDie(config)
				clients.Go(func() {
					select {
					case <-lost.lost:
						p.set("north-2", v1alpha1.DatasetSteady)
					case <-t.Context().Done():
					}
				})
				clients.Go(func() {
					err := call.do(t.Context(), client)
					first, second := lost.arrived(), heir.arrived()
					if call.again && (err != nil || cmp.Diff(first, second) != "" || len(first) != 1) {
						t.Errorf("%s: %v, and in the clusters arrived %v and %v, want once in each", name, err, first, second)
					}
					if !call.again && (!apierrors.IsTimeout(err) || len(first) != 1 || len(second) != 0) {
						t.Errorf("%s: %v, and in the clusters arrived %v and %v, want a time-out, and once in the first alone", name, err, first, second)
					}
				})
			}
		}
	}
}

// kubectl fails for good on a document that ends in the middle.
func TestADocumentThatBreaksOffIsAskedForAgain(t *testing.T) {
	whole := `{"swagger":"` + strings.Repeat("2", 1<<20) + `"}`
	var asked atomic.Int32
	p := &pair{t: t, agents: map[string]string{"north-1": served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		if asked.Add(1) == 1 {
			_, _ = io.WriteString(w, whole[:len(whole)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, whole)
	}))}}
	p.open()
	got, err := kubernetes.NewForConfigOrDie(p.config()).RESTClient().Get().AbsPath("/openapi/v2").DoRaw(t.Context())
	if err != nil || string(got) != whole || asked.Load() != 2 {
		t.Errorf("%d of %d bytes after %d questions: %v", len(got), len(whole), asked.Load(), err)
	}
}

// What the Status says to a client that does not try again by itself.
func TestAMovedApplicationIsNamed(t *testing.T) {
	lost := newPower()
	lost.fails(func(*http.Request) bool { return true })
	p := &pair{t: t, agents: map[string]string{"north-1": served(t, lost.before(http.NotFoundHandler()))}}
	p.open()
	go func() {
		<-lost.lost
		p.set("north-2", v1alpha1.DatasetFencing)
	}()
	response, status := p.post(t, "/applications/pay/ledger/api/v1/namespaces", `{"metadata":{"name":"a"}}`)
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "2" || status.Reason != metav1.StatusReasonServiceUnavailable ||
		!strings.Contains(status.Message, "application pay/ledger: it left cluster north-1") || len(status.Details.Causes) != 1 || status.Details.Causes[0].Type != CauseUnsettled {
		t.Errorf("%d %v %+v", response.StatusCode, response.Header, status)
	}
}

func TestPatchesThatSettle(t *testing.T) {
	for body, want := range map[string]bool{
		`[]`: true, `{}`: false, `[`: false,
		`[{"op":"test","path":"/metadata/uid","value":"a"},{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"b"}]`: true,
		`[{"op":"add","path":"/metadata/labels/x","value":"y"}]`:                                                                          true,
		`[{"op":"remove","path":"/metadata/labels/x"}]`:                                                                                   true,
		`[{"op":"remove","path":"/metadata/finalizers/0"}]`:                                                                               false,
		`[{"op":"add","path":"/spec/template/spec/containers/1","value":{}}]`:                                                             false,
		`[{"op":"move","from":"/data/x","path":"/data/y"}]`:                                                                               false,
		`[{"op":"copy","from":"/data/x","path":"/data/y"}]`:                                                                               false,
		`[{"op":"replace","path":"/a","value":1},{"op":"add","path":"/b/-","value":1}]`:                                                   false,
	} {
		if got := settles([]byte(body)); got != want {
			t.Errorf("%s settles: %t, want %t", body, got, want)
		}
	}
}

// Clients that look for what a server can do try again in silence, many times: only
// while an outage is young.
func TestOnlyAShortOutageIsWaitedForInSilence(t *testing.T) {
	o, ledger, start := newOutages(), applicationName{"pay", "ledger"}, time.Now()
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {20 * time.Second, true}, {outageShort, false}, {50 * time.Second, false}, {50*time.Second + outageShort, true}} {
		if got := o.isShort(ledger, start.Add(step.after)); got != step.want {
			t.Errorf("after %v the outage is short: %t, want %t", step.after, got, step.want)
		}
	}
	if !o.isShort(applicationName{"pay", "other"}, start.Add(time.Hour)) || len(o.seen) != 1 {
		t.Errorf("an outage that is over is remembered: %v", o.seen)
	}
}

// testPowerLoss: kubectl's patch is under way, then its watch, when the center loses
// its power; a script that knows nothing of clusters does not notice.
func testPowerLoss(t *testing.T, p *pair) {
	for _, cluster := range []string{"north-1", "north-2"} {
		p.configMap(t, cluster, "pipeline-2", "any")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var controllers sync.WaitGroup
	controllers.Go(func() { runDeployments(ctx, p.clients["north-2"], "pipeline-2") })
	defer controllers.Wait()
	defer cancel()
	for round, loss := range []struct {
		apply []string
		off   func(*http.Request) bool
		// writes is true where it is lost before or in the write, which then is done in the other cluster.
		writes bool
	}{
		{apply: []string{"apply"}}, // in both clusters
		{[]string{"apply"}, func(r *http.Request) bool { return r.Method == http.MethodPatch }, true},
		{[]string{"apply", "--server-side", "--force-conflicts"}, func(r *http.Request) bool { return r.Method == http.MethodPatch }, true},
		{[]string{"apply"}, func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/openapi")
		}, true},
		{[]string{"apply"}, func(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }, false},
	} {
		manifest := filepath.Join(t.TempDir(), "deployment.json")
		text := strings.NewReplacer("ROUND", fmt.Sprint(round), `"pipeline"`, `"pipeline-2"`).Replace(pipelineManifest)
		if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if loss.off == nil {
			for _, cluster := range []string{"north-2", "north-1"} {
				p.set(cluster, v1alpha1.DatasetSteady)
				p.kubectl(t, append(loss.apply, "-f", manifest)...)
			}
			continue
		}
		p.set("north-1", v1alpha1.DatasetSteady)
		p.power.fails(loss.off)
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			select {
			case <-p.power.lost:
				p.set("north-2", v1alpha1.DatasetFencing)
			case <-ctx.Done():
			}
			select {
			case <-time.After(time.Second): // a promotion takes its time
			case <-ctx.Done():
			}
			p.set("north-2", v1alpha1.DatasetSteady)
		}()
		p.kubectl(t, append(loss.apply, "-f", manifest)...)
		p.kubectl(t, "rollout", "status", "--timeout=60s", "-n", "pipeline-2", "deployment/api")
		<-taken
		p.power.fails(nil)
		if loss.writes {
			last, err := p.clients["north-2"].AppsV1().Deployments("pipeline-2").Get(t.Context(), "api", metav1.GetOptions{})
			if err != nil || last.Spec.Template.Labels["round"] != fmt.Sprint(round) {
				t.Errorf("the active cluster has round %v, want %d: %v", last.Spec.Template.Labels, round, err)
			}
		}
	}
}
