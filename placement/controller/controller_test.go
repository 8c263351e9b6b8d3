package controller_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

func TestFromTemplateToTombstone(t *testing.T) {
	h := newHub(t)
	stop := h.start()
	ctx := t.Context()
	h.cluster("n1", "north")
	h.cluster("n2", "north")
	h.cluster("s1", "south")
	h.create(ledger())
	if c := h.scheduled("ledger", "NothingSelected"); !strings.Contains(c.Message, "no object in namespace pay matches apps/v1 Deployment api") {
		t.Errorf("the message does not name the selector: %s", c.Message)
	}

	h.create(api(4))
	h.create(settings("settings"))
	h.shares("ledger", "n1=2 n2=2")
	first := h.state("n1", "settings api", "")
	h.state("s1", "", "")
	if r := h.placement("ledger").Status.Rejected; len(r) != 1 || r[0].Reasons[0] != "region south is not selected" {
		t.Errorf("rejected: %+v", r)
	}

	h.report("n1")
	h.report("n2")
	h.within("the placement is healthy", func() (bool, any) {
		p := h.placement("ledger")
		return meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionHealthy) &&
			meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionApplied), p.Status
	})

	// A template goes: tombstones first, and only for where it was.
	if err := h.client.Delete(ctx, settings("settings")); err != nil {
		t.Fatal(err)
	}
	h.tombstones("settings@n1", "settings@n2")
	buried := h.state("n1", "api", "settings")
	if buried.Burials[0].Revision <= first.Objects[0].Revision {
		t.Errorf("the burial at %d is not newer than the object at %d", buried.Burials[0].Revision, first.Objects[0].Revision)
	}

	// It comes back before n2 has carried the burial out.
	h.report("n1")
	h.tombstones("settings@n2")
	h.create(settings("settings"))
	h.tombstones()
	again := h.state("n2", "settings api", "")
	if again.Objects[0].Revision <= buried.Burials[0].Revision {
		t.Errorf("the object at %d is not newer than its burial at %d", again.Objects[0].Revision, buried.Burials[0].Revision)
	}

	// A cluster is deselected while nobody leads; the next leader buries there.
	stop()
	h.edit("ledger", func(s *v1alpha1.PlacementSpec) { s.Clusters = v1alpha1.ClusterSelector{Names: []string{"n1"}} })
	h.start()
	h.shares("ledger", "n1=4")
	h.tombstones("api@n2", "settings@n2")
	last := h.state("n2", "", "settings api")
	h.report("n2")
	h.tombstones()
	if after := h.state("n2", "", ""); after.Revision < last.Burials[0].Revision {
		t.Errorf("the state's revision fell from %d to %d with the tombstone", last.Revision, after.Revision)
	}

	// The placement goes; so does what it placed, and then the placement itself.
	if err := h.client.Delete(ctx, ledger()); err != nil {
		t.Fatal(err)
	}
	h.tombstones("api@n1", "settings@n1")
	h.within("the placement is gone", func() (bool, any) {
		err := h.client.Get(ctx, client.ObjectKeyFromObject(ledger()), &v1alpha1.Placement{})
		return apierrors.IsNotFound(err), err
	})
	h.state("n1", "", "settings api")
}

func TestNothingIsBuriedForLossOrIgnorance(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	h.cluster("n2", "north")
	h.create(api(4))
	p := ledger()
	p.Spec.WhenLost = v1alpha1.WhenLostMove
	h.create(p)
	h.shares("ledger", "n1=2 n2=2")

	t.Run("a lost cluster's share moves and its objects are left", func(t *testing.T) {
		h.lease("n1", metav1.ConditionFalse)
		h.shares("ledger", "n2=4")
		if left := h.placement("ledger").Status.Left; !slices.Equal(left, []string{"n1"}) {
			t.Errorf("left: %v", left)
		}
		h.state("n1", "", "")
		h.tombstones()
	})
	t.Run("a returned cluster takes its share again", func(t *testing.T) {
		h.lease("n1", metav1.ConditionTrue)
		h.shares("ledger", "n1=2 n2=2")
		h.state("n1", "api", "")
		h.tombstones()
	})
	t.Run("a kind that the hub does not serve leaves all as it is", func(t *testing.T) {
		h.edit("ledger", func(s *v1alpha1.PlacementSpec) {
			s.Resources[0] = v1alpha1.ResourceSelector{APIVersion: "example.test/v1", Kind: "Queue", Name: "q"}
		})
		c := h.scheduled("ledger", "KindUnknown")
		if !strings.Contains(c.Message, "install its CRD in the hub") {
			t.Errorf("no remedy in %q", c.Message)
		}
		h.shares("ledger", "n1=2 n2=2")
		h.state("n1", "api", "")
		h.tombstones()
	})
	t.Run("a selector with a typo leaves all as it is", func(t *testing.T) {
		h.edit("ledger", func(s *v1alpha1.PlacementSpec) {
			s.Resources[0] = v1alpha1.ResourceSelector{APIVersion: "apps/v1", Kind: "Deployment", Name: "api"}
			s.Clusters.Regions = []string{"nroth"}
		})
		h.scheduled("ledger", "NoCluster")
		h.state("n1", "api", "")
		h.tombstones()
		h.edit("ledger", func(s *v1alpha1.PlacementSpec) { s.Clusters.Regions = nil })
		h.scheduled("ledger", "Scheduled")
	})
	t.Run("a cluster that leaves the fleet is ordered nothing", func(t *testing.T) {
		if err := h.client.Delete(t.Context(), &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}); err != nil {
			t.Fatal(err)
		}
		h.shares("ledger", "n1=4")
		h.tombstones()
	})
}

func TestTwoPlacementsOfOneTemplate(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	h.create(api(2))
	h.create(ledger())
	h.shares("ledger", "n1=2")
	rival := ledger()
	rival.Name = "a-rival" // first by name, but younger or as old
	rival.CreationTimestamp = metav1.Time{}
	older := h.placement("ledger").CreationTimestamp
	h.within("a second has passed since the first placement", func() (bool, any) {
		return time.Since(older.Time) > 1100*time.Millisecond, older
	})
	h.create(rival)
	c := h.scheduled("a-rival", "NothingSelected")
	if c.Status != metav1.ConditionFalse {
		t.Errorf("%+v", c)
	}
	conflict := meta.FindStatusCondition(h.placement("a-rival").Status.Conditions, v1alpha1.ConditionConflict)
	if conflict == nil || !strings.Contains(conflict.Message, "Deployment api (placement ledger)") {
		t.Errorf("conflict: %+v", conflict)
	}
	before := h.state("n1", "api", "")

	// The older goes. The younger inherits the template; nothing is buried.
	if err := h.client.Delete(t.Context(), ledger()); err != nil {
		t.Fatal(err)
	}
	h.shares("a-rival", "n1=2")
	var after *agentv1.DesiredState
	h.within("n1 is told that a-rival places it", func() (bool, any) {
		after = h.states.State("n1")
		return len(after.Objects) == 1 && after.Objects[0].Placement == "pay/a-rival", after
	})
	if after.Objects[0].Revision <= before.Objects[0].Revision {
		t.Errorf("at %d, before %d", after.Objects[0].Revision, before.Objects[0].Revision)
	}
	h.within("the older placement is gone", func() (bool, any) { p := h.placement("ledger"); return p.Name == "", p })
	h.tombstones()
	if after.Revision < before.Revision {
		t.Errorf("the state's revision fell from %d to %d", before.Revision, after.Revision)
	}
}

func TestWatchFollows(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	h.create(api(2))
	h.create(ledger())
	h.shares("ledger", "n1=2")
	ctx, cancel := context.WithCancel(t.Context())
	states := h.states.Watch(ctx, "n1")
	next := func(holds func(*agentv1.DesiredState) bool) {
		t.Helper()
		deadline := time.After(60 * time.Second)
		for {
			select {
			case s := <-states:
				if holds(s) {
					return
				}
			case <-deadline:
				t.Fatal("no such state within 60 s")
			}
		}
	}
	next(func(s *agentv1.DesiredState) bool { return s.Complete && len(s.Objects) == 1 })
	h.create(settings("settings"))
	next(func(s *agentv1.DesiredState) bool { return s.Complete && len(s.Objects) == 2 })
	if err := h.client.Delete(ctx, settings("settings")); err != nil {
		t.Fatal(err)
	}
	next(func(s *agentv1.DesiredState) bool { return len(s.Objects) == 1 && len(s.Burials) == 1 })
	cancel()
	for range states { // drained until it is closed
	}
}

func TestACustomKindIsPlacedOnceItIsServed(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	p := ledger()
	p.Spec.Resources = []v1alpha1.ResourceSelector{{APIVersion: "example.test/v1", Kind: "Queue", Name: "orders"}}
	h.create(p)
	h.scheduled("ledger", "KindUnknown")
	if _, err := envtest.InstallCRDs(h.config, envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{queues()}}); err != nil {
		t.Fatal(err)
	}
	h.scheduled("ledger", "NothingSelected")
	queue := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.test/v1", "kind": "Queue", "spec": map[string]any{"replicas": int64(3), "size": "big"},
		"metadata": map[string]any{"namespace": "pay", "name": "orders"},
	}}
	h.create(queue)
	h.shares("ledger", "n1=3")
	told := h.state("n1", "orders", "")
	if manifest := string(told.Objects[0].Manifest); !strings.Contains(manifest, `"size":"big"`) || !strings.Contains(manifest, `"replicas":3`) {
		t.Errorf("rendered as %s", manifest)
	}
}

// queues is a user's own kind, with replicas.
func queues() *apiextensionsv1.CustomResourceDefinition {
	preserve := true
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "queues.example.test"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.test", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "queues", Singular: "queue", Kind: "Queue", ListKind: "QueueList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}
}

func TestKindsThatCannotBePlacedAreRefusedWithTheReason(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	for name, test := range map[string]struct {
		selector v1alpha1.ResourceSelector
		want     string
	}{
		"own":    {v1alpha1.ResourceSelector{APIVersion: "tripod.dev/v1alpha1", Kind: "Placement", Name: "x"}, "the hub's own"},
		"global": {v1alpha1.ResourceSelector{APIVersion: "scheduling.k8s.io/v1", Kind: "PriorityClass", Name: "high"}, "in no namespace"},
		"rights": {v1alpha1.ResourceSelector{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: "admin"}, "only a placement in namespace tripod-system"},
	} {
		p := ledger()
		p.Name = name
		p.Spec.Resources = []v1alpha1.ResourceSelector{test.selector}
		h.create(p)
		if c := h.scheduled(name, "KindNotPlaceable"); !strings.Contains(c.Message, test.want) {
			t.Errorf("%s: %s", name, c.Message)
		}
	}
}

func TestABadOverrideIsReportedAndHindersOnlyItsObject(t *testing.T) {
	h := newHub(t)
	h.start()
	h.cluster("n1", "north")
	h.create(api(1))
	h.create(settings("settings"))
	p := ledger()
	p.Spec.Overrides = []v1alpha1.Override{{Patches: []v1alpha1.OverridePatch{{
		Kind: "Deployment", JSONPatch: []v1alpha1.JSONPatchOperation{{Op: "remove", Path: "/spec/nothing"}},
	}}}}
	h.create(p)
	h.state("n1", "settings", "")
	h.within("the failure is in the status", func() (bool, any) {
		s := h.placement("ledger").Status
		return len(s.Clusters) == 1 && len(s.Clusters[0].Failures) == 1 &&
			strings.Contains(s.Clusters[0].Failures[0], "overrides[0].patches[0] of Deployment pay/api for cluster n1"), s.Clusters
	})
}
