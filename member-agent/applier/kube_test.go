package applier

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// within waits for a condition of the real API server.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within 60 s: %s", what)
		case <-tick.C:
		}
	}
}

func deploymentWish(revision string, replicas int) *agentv1.DesiredObject {
	raw, _ := json.Marshal(map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{
			"namespace": "pay", "name": "api", "labels": map[string]any{v1alpha1.LabelManagedBy: managedBy},
			"annotations": map[string]any{v1alpha1.AnnotationRevision: revision, v1alpha1.AnnotationIncarnation: "1"},
		},
		"spec": map[string]any{
			"replicas": replicas, "selector": map[string]any{"matchLabels": map[string]any{"app": "api"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": "api"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i", "resources": map[string]any{"requests": map[string]any{"cpu": "1000m"}}}}},
			},
		},
	})
	return &agentv1.DesiredObject{
		Key:      &agentv1.ObjectKey{ApiVersion: "apps/v1", Kind: "Deployment", Namespace: "pay", Name: "api"},
		Revision: 8, Placement: "pay/ledger", Manifest: raw,
	}
}

func TestWithARealAPIServer(t *testing.T) {
	config := kubeapi.Start(t)
	client := kubernetes.NewForConfigOrDie(config)
	sent := make(chan *agentv1.AppliedStatus, 100)
	a, err := New(Config{RESTConfig: config, Send: func(s *agentv1.AppliedStatus) { sent <- s }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	a.SetActive(true)
	deployments := client.AppsV1().Deployments("pay")
	get := func() *appsv1.Deployment {
		d, err := deployments.Get(ctx, "api", metav1.GetOptions{})
		if err != nil {
			return &appsv1.Deployment{}
		}
		return d
	}

	a.Desired(state(1, 10, deploymentWish("8", 2), wish("settings", 8)))
	within(t, "the deployment is made, with its namespace", func() bool { return get().Name == "api" })
	if m := get().ManagedFields; len(m) == 0 || m[0].Manager != v1alpha1.FieldManager || m[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("applied as %+v", m)
	}
	within(t, "the status is sent", func() bool { s := <-sent; return len(s.Objects) == 2 && s.Objects[1].Applied })
	version := get().ResourceVersion
	a.enqueueAll()

	t.Run("drift of a field is repaired", func(t *testing.T) {
		d := get()
		if d.ResourceVersion != version {
			t.Errorf("applying the same again wrote: %s to %s", version, d.ResourceVersion)
		}
		nine := int32(9)
		d.Spec.Replicas = &nine
		if _, err := deployments.Update(ctx, d, metav1.UpdateOptions{FieldManager: "person"}); err != nil {
			t.Fatal(err)
		}
		within(t, "replicas are 2 again", func() bool { return *get().Spec.Replicas == 2 })
	})
	t.Run("health follows the status", func(t *testing.T) {
		d := get()
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}
		if _, err := deployments.UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, "healthy is reported", func() bool {
			for _, o := range a.Status().GetObjects() {
				if o.Key.Name == "api" {
					return o.Healthy
				}
			}
			return false
		})
	})
	t.Run("a deletion by hand is repaired", func(t *testing.T) {
		uid := get().UID
		if err := deployments.Delete(ctx, "api", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, "the deployment is made again", func() bool { d := get(); return d.Name == "api" && d.UID != uid })
	})
	t.Run("an unknown kind is reported and hinders nothing", func(t *testing.T) {
		a.Desired(partial(state(1, 11, &agentv1.DesiredObject{
			Key: &agentv1.ObjectKey{ApiVersion: "example.test/v1", Kind: "Queue", Namespace: "pay", Name: "q"}, Revision: 11,
			Manifest: []byte(`{"apiVersion":"example.test/v1","kind":"Queue","metadata":{"name":"q","namespace":"pay"}}`),
		})))
		within(t, "it is reported", func() bool {
			for _, o := range a.Status().GetObjects() {
				if o.Key.Name == "q" {
					return !o.Applied && o.Message != ""
				}
			}
			return false
		})
	})
	t.Run("a foreign object survives a tombstone, ours does not, and the namespace stays", func(t *testing.T) {
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}}
		if _, err := client.CoreV1().ConfigMaps("pay").Create(ctx, foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		queue := &agentv1.Burial{Key: &agentv1.ObjectKey{ApiVersion: "example.test/v1", Kind: "Queue", Namespace: "pay", Name: "q"}, Revision: 12, Tombstone: "pay/q"}
		a.Desired(state(1, 12, wish("settings", 8), grave("foreign", 12), queue, &agentv1.Burial{
			Key: deploymentWish("8", 2).Key, Revision: 12, Tombstone: "pay/api",
		}))
		within(t, "all three are acknowledged", func() bool { return len(a.Status().GetBuried()) == 3 })
		if _, err := deployments.Get(ctx, "api", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the buried deployment: %v", err)
		}
		for _, name := range []string{"foreign", "settings"} {
			if _, err := client.CoreV1().ConfigMaps("pay").Get(ctx, name, metav1.GetOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
}
