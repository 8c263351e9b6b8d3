package hook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func called(h v1alpha1.PlanHook) failover.HookCall {
	h.Name, h.At = "tell", "BeforePromote"
	run := &v1alpha1.RecoveryRun{}
	run.Name = "out.1.pay.ledger"
	run.Spec.Application = v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}
	run.Status.Datasets = []v1alpha1.RunDataset{{Name: "ledger-db", Target: "north-2", Epoch: 8}}
	return failover.HookCall{ID: run.Name + "/hook.tell/2", Hook: h, Run: run, Application: run.Spec.Application, Attempt: 2, Bound: 5 * time.Second}
}

func TestHTTPTellsTheRunAndTakes2xxAsSuccess(t *testing.T) {
	var got Account
	status := http.StatusNoContent
	var headers http.Header
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers = r.Header.Clone()
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		w.Header().Set("Location", "https://elsewhere.example.test")
		w.WriteHeader(status)
		_, _ = w.Write([]byte("not today"))
	}))
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	r := New(Config{Headers: func(context.Context, string) (map[string]string, error) {
		return map[string]string{"Authorization": "Bearer x"}, nil
	}})
	call := called(v1alpha1.PlanHook{HTTP: &v1alpha1.HTTPHook{URL: server.URL, CABundle: ca, HeaderSecret: "token", Headers: map[string]string{"X-Team": "dr"}}})
	if res := r.Do(t.Context(), call); res.Outcome != failover.Done {
		t.Fatalf("%+v", res)
	}
	if got.Key != call.ID || got.Application != "ledger" || got.Datasets[0].Epoch != 8 || headers.Get("Idempotency-Key") != call.ID ||
		headers.Get("Authorization") != "Bearer x" || headers.Get("X-Team") != "dr" {
		t.Errorf("account %+v, headers %v", got, headers)
	}
	for _, status = range []int{http.StatusServiceUnavailable, http.StatusFound} {
		if res := r.Do(t.Context(), call); res.Outcome != failover.Failed || !strings.Contains(res.Message, "want 2xx") {
			t.Errorf("%d: %+v", status, res)
		}
	}
	call.Hook.HTTP.CABundle = ""
	if res := r.Do(t.Context(), call); res.Outcome != failover.Failed || !strings.Contains(res.Message, "certificate") {
		t.Errorf("a server that nobody vouches for: %+v", res)
	}
}

func TestAMessageIsACloudEvent(t *testing.T) {
	var headers http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { headers = r.Header.Clone() }))
	defer server.Close()
	call := called(v1alpha1.PlanHook{Message: &v1alpha1.MessageHook{URL: server.URL}})
	if res := New(Config{}).Do(t.Context(), call); res.Outcome != failover.Done {
		t.Fatalf("%+v", res)
	}
	for name, want := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": call.ID, "Ce-Type": "dev.tripod.recovery", "Ce-Subject": "pay/ledger"} {
		if headers.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, headers.Get(name), want)
		}
	}
}

func TestGRPCAsksForHealth(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, service := grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Stop(); <-served }()
	service.SetServingStatus("ledger", healthv1.HealthCheckResponse_SERVING)
	service.SetServingStatus("cards", healthv1.HealthCheckResponse_NOT_SERVING)
	for name, want := range map[string]failover.Outcome{"ledger": failover.Done, "cards": failover.Failed, "unknown": failover.Failed} {
		call := called(v1alpha1.PlanHook{GRPC: &v1alpha1.GRPCHook{Address: listener.Addr().String(), Service: name, Security: "Plaintext"}})
		if res := New(Config{}).Do(t.Context(), call); res.Outcome != want {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func TestAConditionIsAwaited(t *testing.T) {
	var asked atomic.Int32
	r := New(Config{Pace: time.Millisecond, View: func(context.Context) (map[string]any, error) {
		state := "Streaming"
		if asked.Add(1) > 3 {
			state = "Running"
		}
		return map[string]any{"datasets": []any{map[string]any{"metadata": map[string]any{"name": "ledger-db"}, "status": map[string]any{"state": state}}}}, nil
	}})
	wait := func(condition string, bound time.Duration) failover.Result {
		call := called(v1alpha1.PlanHook{Wait: &v1alpha1.WaitHook{Condition: condition}})
		call.Bound = bound
		return r.Do(t.Context(), call)
	}
	if res := wait(`datasets.exists(d, d.metadata.name == "ledger-db" && d.status.state == "Running") && run.metadata.name == "out.1.pay.ledger"`, time.Minute); res.Outcome != failover.Done || asked.Load() < 4 {
		t.Errorf("%+v after %d looks", res, asked.Load())
	}
	for condition, want := range map[string]string{
		`clusters.size() > 0`:      "is not true",
		`datasets[0].status.no`:    "no such key",
		`datasets.exists(d,`:       "condition is not valid",
		`nobody == 1`:              "undeclared reference",
		`"text"`:                   "is a string, want a bool",
		`datasets[0].status.state`: "want a bool",
	} {
		if res := wait(condition, 20*time.Millisecond); res.Outcome != failover.Failed || !strings.Contains(res.Message, want) {
			t.Errorf("%s: %+v, want %q", condition, res, want)
		}
	}
}
