package controller_test

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/member-agent/applier"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// join connects a real member cluster to the hub, as the session would: states
// down, statuses up. leave cuts it off; a new join is a new agent.
func (h *hub) join(name string, seen applier.Seen, config applier.Config) (leave func() applier.Seen) {
	h.t.Helper()
	config.Seen = seen
	config.Send = func(s *agentv1.AppliedStatus) { h.reports.Applied(name, s) }
	a, err := applier.New(config)
	if err != nil {
		h.t.Fatal(err)
	}
	a.SetActive(true)
	stopApplier := background(h.t, a.Run)
	stopSession := background(h.t, func(ctx context.Context) error {
		for state := range h.states.Watch(ctx, name) {
			a.Desired(state)
		}
		return nil
	})
	return func() applier.Seen {
		stopSession()
		stopApplier()
		return a.Seen()
	}
}

// From a template in the hub to an object in a member and back to a status, over
// two real API servers, with a disconnect during which the world changes.
func TestAMemberFollowsTheHub(t *testing.T) {
	h := newHub(t)
	h.start()
	config := kubeapi.Start(t)
	member, err := client.New(config, client.Options{Scheme: h.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	h.cluster("n1", "north")
	h.create(api(3))
	h.create(settings("settings"))
	h.create(settings("other"))
	h.create(ledger())
	leave := h.join("n1", applier.Seen{}, applier.Config{RESTConfig: config})

	deployment := func() *appsv1.Deployment {
		d := &appsv1.Deployment{}
		_ = member.Get(ctx, client.ObjectKey{Namespace: "pay", Name: "api"}, d)
		return d
	}
	configMap := func(name string) error {
		return member.Get(ctx, client.ObjectKey{Namespace: "pay", Name: name}, &corev1.ConfigMap{})
	}
	h.within("the objects are in the member", func() (bool, any) {
		d := deployment()
		return d.Spec.Replicas != nil && *d.Spec.Replicas == 3 && configMap("settings") == nil && configMap("other") == nil, d
	})
	h.within("the placement says what is applied and what is not healthy", func() (bool, any) {
		p := h.placement("ledger")
		return meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionApplied) &&
			meta.IsStatusConditionFalse(p.Status.Conditions, v1alpha1.ConditionHealthy), p.Status.Conditions
	})
	d := deployment()
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 3, UpdatedReplicas: 3, ReadyReplicas: 3, AvailableReplicas: 3}
	if err := member.Status().Update(ctx, d); err != nil {
		t.Fatal(err)
	}
	h.within("the placement is healthy", func() (bool, any) {
		p := h.placement("ledger")
		return meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionHealthy), p.Status
	})

	// While the member is away a template goes, another changes.
	seen := leave()
	if err := h.client.Delete(ctx, settings("settings")); err != nil {
		t.Fatal(err)
	}
	h.tombstones("settings@n1")
	changed := &appsv1.Deployment{}
	if err := h.client.Get(ctx, client.ObjectKeyFromObject(api(3)), changed); err != nil {
		t.Fatal(err)
	}
	five := int32(5)
	changed.Spec.Replicas = &five
	if err := h.client.Update(ctx, changed); err != nil {
		t.Fatal(err)
	}
	h.shares("ledger", "n1=5")
	if err := configMap("settings"); err != nil {
		t.Errorf("gone while the member was away: %v", err)
	}
	h.join("n1", seen, applier.Config{RESTConfig: config})
	h.within("the member catches up", func() (bool, any) {
		d := deployment()
		return *d.Spec.Replicas == 5 && apierrors.IsNotFound(configMap("settings")) && configMap("other") == nil, d.Spec.Replicas
	})
	h.tombstones()

	// The placement goes: so does what it placed, and nothing else.
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "foreign"}}
	if err := member.Create(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Delete(ctx, ledger()); err != nil {
		t.Fatal(err)
	}
	h.within("the member is cleared", func() (bool, any) {
		return deployment().Name == "" && apierrors.IsNotFound(configMap("other")), deployment().Name
	})
	h.tombstones()
	if err := configMap("foreign"); err != nil {
		t.Error(err)
	}
}
