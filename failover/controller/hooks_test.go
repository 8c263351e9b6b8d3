package controller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestHooksOfARunAreDoneAndInItsEvidence(t *testing.T) {
	var mu sync.Mutex
	keys := map[string]int{}
	failures := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer x" {
			t.Error("the secret's header is missing")
		}
		keys[r.Header.Get("Idempotency-Key")]++
		if failures > 0 {
			failures--
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	h := newHub(t)
	h.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "token"}, Data: map[string][]byte{"Authorization": []byte("Bearer x")}})
	h.create(&v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "city"}, Spec: v1alpha1.RecoveryPlanSpec{Hooks: []v1alpha1.PlanHook{
		{Name: "tell", At: "BeforePromote", HTTP: &v1alpha1.HTTPHook{URL: server.URL, HeaderSecret: "token"}, TimeoutSeconds: 5, Attempts: 2, OnFailure: v1alpha1.HookPause},
		{Name: "there", At: "AfterVerify", Wait: &v1alpha1.WaitHook{Condition: `datasets.exists(d, d.metadata.name == "ledger-db" && d.status.primary == "north-2")`}, TimeoutSeconds: 5, Attempts: 1}}}})
	stop := h.lead(h.member("hub-north-2", h.Client))
	defer stop()
	h.until("formed and protected", h.protected)
	h.create(&v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: v1alpha1.RecoveryRunSpec{Plan: "city",
		Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionFailover,
		From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: "north-2"}, Requester: "ann"}})
	h.until("run completed", h.completed)
	mu.Lock()
	defer mu.Unlock()
	if keys["one/hook.tell/1"] != 1 || keys["one/hook.tell/2"] != 1 || len(keys) != 2 {
		t.Errorf("calls by key: %v", keys)
	}
	var texts []string
	for _, r := range h.chain(t, "one") {
		texts = append(texts, r.Text)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"one/hook.tell/1 http hook at BeforePromote", "one/hook.tell/1 failed (BeforePromote)", "one/hook.tell/2 attempt 2 (BeforePromote): 200 OK", "one/hook.there/1 attempt 1 (AfterVerify): the condition is true"} {
		if !strings.Contains(all, want) {
			t.Errorf("the evidence does not say %q:\n%s", want, all)
		}
	}
}
