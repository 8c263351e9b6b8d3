package failover

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func amount(cpu, memory string) v1alpha1.Resources {
	return v1alpha1.Resources{CPU: resource.MustParse(cpu), Memory: resource.MustParse(memory)}
}

// placed gives the application a placement, and its clusters what it needs.
func placed(t *testing.T) *world {
	w := newWorld(t).steady()
	app := w.app().DeepCopy()
	app.Spec.Placements = []string{"ledger"}
	w.stamp(app)
	replace(w.s.Applications, app)
	w.s.Placements = []*v1alpha1.Placement{{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}, Spec: v1alpha1.PlacementSpec{WhenLost: v1alpha1.WhenLostMove},
		Status: v1alpha1.PlacementStatus{Needs: &v1alpha1.PlacementNeeds{StorageClasses: []string{"fast"}, CustomKinds: []string{"Cache.example.test"}, Images: []string{"ledger:1"},
			Shares: []v1alpha1.ShareRequests{{Cluster: "north-1", Requests: amount("2", "2Gi")}, {Cluster: "north-2", Requests: amount("2", "2Gi")}}}}}}
	w.s.Kubernetes = map[string]*v1alpha1.KubernetesStatus{}
	for _, c := range []string{"north-1", "north-2", "south-1"} {
		w.s.Kubernetes[c] = &v1alpha1.KubernetesStatus{Allocatable: amount("8", "16Gi"), Requested: amount("4", "4Gi"),
			StorageClasses: []string{"fast"}, CustomKinds: []string{"Cache.example.test"}}
	}
	w.turns(2)
	return w
}

// S23: what the target lacks is named before a disaster.
func TestWhatATargetLacksIsNamedBeforehand(t *testing.T) {
	for name, tc := range map[string]struct {
		check, want string
		change      func(w *world, k *v1alpha1.KubernetesStatus)
	}{
		"memory":                 {"Capacity", "1Gi of memory", func(_ *world, k *v1alpha1.KubernetesStatus) { k.Requested = amount("4", "15Gi") }},
		"cpu and memory":         {"Capacity", "500m of cpu and 1Gi of memory", func(_ *world, k *v1alpha1.KubernetesStatus) { k.Requested = amount("6500m", "15Gi") }},
		"room for what is there": {"Capacity", "no room there already", func(_ *world, k *v1alpha1.KubernetesStatus) { k.Crowded = []string{"pay"} }},
		"a storage class":        {"StorageClass", "storage class fast", func(_ *world, k *v1alpha1.KubernetesStatus) { k.StorageClasses = []string{"slow"} }},
		"a CRD":                  {"CustomKinds", "kind Cache.example.test", func(_ *world, k *v1alpha1.KubernetesStatus) { k.CustomKinds = nil }},
		"an image":               {"Images", "image ledger:1", func(_ *world, k *v1alpha1.KubernetesStatus) { k.MissingImages = []string{"ledger:1"} }},
		"an address": {"DNS", "no endpoint there", func(w *world, _ *v1alpha1.KubernetesStatus) {
			g := w.name().DeepCopy()
			g.Spec.Endpoints = g.Spec.Endpoints[:1]
			replace(w.s.Services, g)
		}},
		"anybody's consent to it": {"Hold", "power works", func(w *world, _ *v1alpha1.KubernetesStatus) { w.s.Fleet.Clusters[1].Hold = "power works" }},
	} {
		t.Run(name, func(t *testing.T) {
			w := placed(t)
			if c := condition(w.app(), v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue {
				t.Fatalf("not ready with all that it needs: %s", c.Message)
			}
			tc.change(w, w.s.Kubernetes["north-2"])
			w.turns(2)
			c := checkOf(w.app(), tc.check, "north-2")
			if c.Result == v1alpha1.PreflightPassed || !strings.Contains(c.Message, tc.want) {
				t.Errorf("the preflight says %+v, want %q", c, tc.want)
			}
			if c := condition(w.app(), v1alpha1.ConditionReady); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, tc.want) {
				t.Errorf("ready is %s: %s", c.Status, c.Message)
			}
			if w.db().Status.Epoch != 1 || len(w.s.Runs) != 0 {
				t.Error("something was moved")
			}
		})
	}
}

// What stays where it is needs no room elsewhere.
func TestAPlacementThatKeepsItsShareNeedsNoRoom(t *testing.T) {
	w := placed(t)
	w.s.Placements[0].Spec.WhenLost = v1alpha1.WhenLostKeep
	w.s.Kubernetes["north-2"].Requested = amount("8", "16Gi")
	w.turns(2)
	if c := checkOf(w.app(), "Capacity", "north-2"); c.Result != v1alpha1.PreflightPassed {
		t.Errorf("%+v", c)
	}
}

func condition(app *v1alpha1.Application, kind string) metav1.Condition {
	for _, c := range app.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}
