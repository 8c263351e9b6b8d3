package term

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestAnApplicationWithWhatItNames(t *testing.T) {
	s := &store{}
	c := NewCommitted(s, DefaultPrefix, Monotonic(), nil)
	if state, err := c.Application(t.Context(), "pay", "ledger"); state != nil || err != nil {
		t.Fatalf("an application that is not there: %v, %v", state, err)
	}
	s.put(t, "clusters", "north-1", cluster("north-1"))
	s.put(t, "clusters", "north-2", cluster("north-2"))
	s.put(t, "clusters", "north-2", cluster("north-2")) // changed since it was created
	s.put(t, "datasets", "pay/ledger", dataset(v1alpha1.DatasetSteady, "north-2", "", 3))
	s.put(t, "datasets", "core/ledger", dataset(v1alpha1.DatasetSteady, "north-1", "", 3))
	service := &v1alpha1.GlobalService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "www"}}
	service.Status.Active = []string{"north-1", "west-9"}
	s.put(t, "globalservices", "pay/www", service)
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}}
	app.Spec.Datasets, app.Spec.Services = []string{"missing", "ledger"}, []string{"www"}
	s.put(t, "applications", "pay/ledger", app)

	state, err := c.Application(t.Context(), "pay", "ledger")
	if err != nil || state == nil || len(state.Datasets) != 1 || state.Datasets[0].Status.Primary != "north-2" || len(state.Services) != 1 {
		t.Fatalf("got %+v, %v", state, err)
	}
	if diff := cmp.Diff(map[string]uint64{"north-1": 1, "north-2": 2}, state.Serials); diff != "" {
		t.Errorf("serials (-want +got):\n%s", diff)
	}
	if other, err := c.Application(t.Context(), "core", "ledger"); other != nil || err != nil {
		t.Errorf("an application of another namespace: %v, %v", other, err)
	}
}
