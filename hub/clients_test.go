package hub

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A hook's Job is asked for through the tunnel of its cluster, in nobody's name.
func TestClientsAskThroughTheTunnelInNobodysName(t *testing.T) {
	var asked *http.Request
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: metav1.ObjectMeta{Name: "j"}})
	}))
	defer api.Close()
	var dialled string
	reach := clients(func(ctx context.Context, cluster string) (net.Conn, error) {
		dialled = cluster
		var d net.Dialer
		return d.DialContext(ctx, "tcp", api.Listener.Addr().String())
	})
	client, done, err := reach("north-2")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if _, err := client.BatchV1().Jobs("pay").Get(t.Context(), "j", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if dialled != "north-2" || asked.URL.Path != "/apis/batch/v1/namespaces/pay/jobs/j" || asked.Header.Get("Impersonate-User") != "" || asked.Header.Get("Authorization") != "" {
		t.Errorf("dialled %q: %s %v", dialled, asked.URL.Path, asked.Header)
	}
}
