package view

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tripod.dev/tripod/syncer"
)

// BenchmarkFirstPage lists 500 of 100,000 pods in 20 clusters, as kubectl does.
func BenchmarkFirstPage(b *testing.B) {
	v, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	for c := range 20 {
		a := newAgent(b, v, fmt.Sprintf("cluster-%02d", c), podResource)
		a.limit = syncer.Limit{Objects: 256, Bytes: 128 << 10}
		for p := range 5000 {
			a.put(podResource, fmt.Sprint("ns-", p%50), fmt.Sprint("pod-", p), map[string]string{"app": fmt.Sprint(p % 9)}, pod("n1", "Running"))
		}
		a.sync()
	}
	handler, err := NewHandler(HandlerConfig{View: v, Authorizer: &rights{denied: sets.New[string]()}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/pods?limit=500", nil)
		ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "pods"})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.WithContext(request.WithUser(ctx, &user.DefaultInfo{Name: "ann"})))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body.String())
		}
	}
}

// BenchmarkIngest parses and indexes one changed pod.
func BenchmarkIngest(b *testing.B) {
	v, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	a := newAgent(b, v, "north-1", podResource)
	for b.Loop() {
		a.put(podResource, "ns", fmt.Sprint("pod-", a.version%5000), map[string]string{"app": "a"}, pod("n1", "Running"))
		a.step(podResource)
	}
}
