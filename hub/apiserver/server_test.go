package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/test/freeport"
)

// TestHub runs one server and asks it everything: starting one takes seconds.
func TestHub(t *testing.T) {
	fleet := &fleetHook{}
	h := startHub(t, func(c *Config) { c.Hooks = fleet.hooks() })
	stop := h.runLeader(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *hub)
	}{
		{"discovery lists the kinds of Tripod and of templates and nothing that runs them", testDiscovery},
		{"OpenAPI explains a cluster's fields", testOpenAPI},
		{"server-side apply creates, owns and refuses foreign fields", testServerSideApply},
		{"tables print built-in and custom kinds", testTables},
		{"a watch sees what is applied", testWatch},
		{"service templates keep what their author wrote", testServices},
		{"a namespace with contents can be deleted", testNamespaceDeletion},
		{"dependents are collected after their owner", testGarbageCollection},
		{"an unknown dataset driver is refused with the known ones", testUnknownDriver},
		{"an approval carries the authenticated user", testApprovals},
		{"a run that is under way is not deleted", testRunsUnderWay},
		{"a plan is refused with what to mend", testPlans},
		{"rights in clusters are given by who may, and no more than they hold", testRights},
		{"who ordered a run may withdraw it and approve nothing", testWithdrawal},
		{"status is the hub's to write", testStatusIsTheHubs},
		{"service account tokens authenticate", testServiceAccountTokens},
		{"a CEL policy of the user is enforced", testAdmissionPolicy},
		{"requests are audited once with their user", testAudit},
		{"a cluster joins, renews and cannot be taken over", testJoin},
		{"a renewed certificate is served without a restart", testRenewal},
		{"people get certificates when somebody vouches for them", testPeople},
		{"hooks route and authorize as their request info says", fleet.test},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
	t.Run("leader controllers end with their term", func(t *testing.T) { stop() })
}

// runLeader starts the leader's controllers; the result ends them.
func (h *hub) runLeader(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, runnable := range h.server.LeaderControllers() {
		running.Go(func() {
			if err := runnable.Run(ctx); err != nil {
				t.Errorf("%s: %v", runnable.Name, err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); running.Wait() }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("some leader controllers did not end 20 s after their term")
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestRestartChangesNothing(t *testing.T) {
	member, config := newHubConfig(t)
	config.Store.Endpoints = []string{startEtcd(t, filepath.Join(config.DataDir, "etcd"))}
	var versions []map[string]string
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		server, err := New(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- server.Run(ctx) }()
		h := &hub{authority: openAuthority(t, member), server: server}
		<-server.Ready()
		if _, err := in(server.Loopback(), datasetsResource, "").List(ctx, metav1.ListOptions{}); err != nil {
			t.Errorf("a kind of Tripod on a server that is ready: %v", err)
		}
		h.waitReady(t)
		versions = append(versions, h.crdVersions(t))
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(versions[0], versions[1]); diff != "" {
		t.Errorf("a restart wrote CRDs anew (-before +after):\n%s", diff)
	}
}

// TestStoppingWhileStartingEndsRunAndNotTheProcess: upstream's hooks end the
// process when the server stops before they are done.
func TestStoppingWhileStartingEndsRunAndNotTheProcess(t *testing.T) {
	_, config := newHubConfig(t)
	config.Store.Endpoints = []string{startEtcd(t, filepath.Join(config.DataDir, "etcd"))}
	ctx, cancel := context.WithCancel(context.Background())
	server, err := New(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	<-server.Serving()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, config := newHubConfig(t)
	config.Listen, config.Store.Endpoints = taken.Addr().String(), []string{"http://127.0.0.1:1"}
	_, err = New(context.Background(), config)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), config.Listen) {
		t.Errorf("New: %v, wants the address and what to do", err)
	}
}

func TestUnreachableStoreIsWaitedForAndReported(t *testing.T) {
	_, config := newHubConfig(t)
	config.Store.Endpoints = []string{"http://" + freeport.Addresses(t, 1)[0]}
	log := &lockedBuffer{}
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := New(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	eventually(t, "the wait is reported", func(context.Context) string {
		if !strings.Contains(log.String(), "waits for the store") {
			return "silent"
		}
		return ""
	})
	select {
	case err := <-done:
		t.Fatalf("Run gave up: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, wants the context's error", err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestConfigReportsEverythingThatIsMissing(t *testing.T) {
	err := Config{}.WithDefaults().Validate()
	for _, want := range []string{"member name", "advertise address", "data directory", "CA file", "store endpoint"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate: %v, wants it to name the %s", err, want)
		}
	}
}

// fleetHook stands for the gateway: a path of its own, known to authorization
// as a resource.
type fleetHook struct {
	mu   sync.Mutex
	seen []string
}

func (f *fleetHook) hooks() Hooks {
	return Hooks{
		RequestInfo: func(inner request.RequestInfoResolver) request.RequestInfoResolver {
			return resolverFunc(func(r *http.Request) (*request.RequestInfo, error) {
				if r.URL.Path != "/clusters/north-1/version" {
					return inner.NewRequestInfo(r)
				}
				return &request.RequestInfo{
					IsResourceRequest: true, Path: r.URL.Path, Verb: "get", APIGroup: "tripod.dev", APIVersion: "v1alpha1",
					Resource: "clusters", Subresource: "proxy", Name: "north-1",
				}, nil
			})
		},
		Handler: func(inner http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/clusters/") {
					inner.ServeHTTP(w, r)
					return
				}
				who, _ := request.UserFrom(r.Context())
				f.mu.Lock()
				defer f.mu.Unlock()
				f.seen = append(f.seen, who.GetName())
				_, _ = w.Write([]byte(`{}`))
			})
		},
		Ready: map[string]func(*http.Request) error{"view": func(*http.Request) error { return nil }},
	}
}

type resolverFunc func(*http.Request) (*request.RequestInfo, error)

func (f resolverFunc) NewRequestInfo(r *http.Request) (*request.RequestInfo, error) { return f(r) }

func (f *fleetHook) test(t *testing.T, h *hub) {
	get := func(client *kubernetes.Clientset) error {
		return client.RESTClient().Get().AbsPath("/clusters/north-1/version").Do(context.Background()).Error()
	}
	if err := get(kubernetes.NewForConfigOrDie(h.admin())); err != nil {
		t.Errorf("as admin: %v", err)
	}
	if err := get(kubernetes.NewForConfigOrDie(h.as("eve"))); err == nil || !strings.Contains(err.Error(), `cannot get resource "clusters/proxy"`) {
		t.Errorf("as eve: %v, wants a refusal that names clusters/proxy", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff([]string{"tripod:admin"}, f.seen); diff != "" {
		t.Errorf("the handler saw (-want +got):\n%s", diff)
	}
}

func testAudit(t *testing.T, h *hub) {
	client := kubernetes.NewForConfigOrDie(h.as("auditee", "system:masters"))
	if _, err := client.CoreV1().Namespaces().Get(context.Background(), "kube-system", getOptions); err != nil {
		t.Fatal(err)
	}
	var records []string
	eventually(t, "the request is in the log", func(context.Context) string {
		data, err := os.ReadFile(filepath.Join(h.dataDir, "audit", "audit.log"))
		if err != nil {
			return err.Error()
		}
		records = nil
		for _, line := range strings.Split(string(data), "\n") {
			var event struct {
				Stage     string
				User      struct{ Username string }
				ObjectRef struct{ Resource, Name string }
			}
			if json.Unmarshal([]byte(line), &event) == nil && event.User.Username == "auditee" {
				records = append(records, event.Stage+" "+event.ObjectRef.Resource+"/"+event.ObjectRef.Name)
			}
		}
		if len(records) == 0 {
			return "not there"
		}
		return ""
	})
	if want := []string{"ResponseComplete namespaces/kube-system"}; !slices.Equal(records, want) {
		t.Errorf("audit records %q, want %q", records, want)
	}
}
