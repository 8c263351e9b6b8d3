package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement/catalog"
	"tripod.dev/tripod/placement/controller"
	"tripod.dev/tripod/placement/desired"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/test/multikind/kubeapi"
)

// hub is one hub member's placement side over a real API server.
type hub struct {
	t       *testing.T
	config  *rest.Config
	client  client.Client
	reports *controller.Reports
	states  *desired.Renderer
	start   func() (stop func())
}

func newHub(t *testing.T) *hub {
	config := kubeapi.Start(t)
	kubeapi.InstallKinds(t, config)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	copied, err := catalog.New(catalog.Config{RESTConfig: config, Retry: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	states, err := desired.New(desired.Config{Catalog: copied, Incarnation: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t, config: config, client: c, reports: controller.NewReports(), states: states}
	background(t, copied.Run)
	h.start = func() func() {
		leader, err := controller.New(controller.Config{RESTConfig: config, Catalog: copied, Reports: h.reports})
		if err != nil {
			t.Fatal(err)
		}
		return background(t, leader.Run)
	}
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "pay"}})
	return h
}

// background runs until stop is called or the test ends, and waits for its end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func (h *hub) create(obj client.Object) {
	h.t.Helper()
	if err := h.client.Create(h.t.Context(), obj); err != nil {
		h.t.Fatal(err)
	}
}

// within waits for a condition; it fails with what describe last said.
func (h *hub) within(what string, holds func() (bool, any)) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := holds()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("not within 60 s: %s; last: %+v", what, seen)
		case <-tick.C:
		}
	}
}

func (h *hub) cluster(name, region string) {
	h.t.Helper()
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterSpec{
		Region: region, Center: name, Admission: v1alpha1.AdmissionAccepted, Access: v1alpha1.ClusterAccess{Mode: v1alpha1.AccessTunnel},
	}}
	h.create(c)
	h.lease(name, metav1.ConditionTrue)
}

func (h *hub) lease(name string, status metav1.ConditionStatus) {
	h.t.Helper()
	c := &v1alpha1.Cluster{}
	if err := h.client.Get(h.t.Context(), client.ObjectKey{Name: name}, c); err != nil {
		h.t.Fatal(err)
	}
	meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionLeased, Status: status, Reason: "Test"})
	if err := h.client.Status().Update(h.t.Context(), c); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) placement(name string) *v1alpha1.Placement {
	p := &v1alpha1.Placement{}
	if err := h.client.Get(h.t.Context(), client.ObjectKey{Namespace: "pay", Name: name}, p); err != nil {
		return &v1alpha1.Placement{}
	}
	return p
}

func (h *hub) edit(name string, change func(*v1alpha1.PlacementSpec)) {
	h.t.Helper()
	h.within("placement "+name+" is edited", func() (bool, any) {
		p := h.placement(name)
		change(&p.Spec)
		err := h.client.Update(h.t.Context(), p)
		return err == nil, err
	})
}

// scheduled waits until condition Scheduled has the reason, and returns it.
func (h *hub) scheduled(name, reason string) *metav1.Condition {
	h.t.Helper()
	var found *metav1.Condition
	h.within("placement "+name+" is "+reason, func() (bool, any) {
		found = meta.FindStatusCondition(h.placement(name).Status.Conditions, v1alpha1.ConditionScheduled)
		return found != nil && found.Reason == reason, found
	})
	return found
}

// shares waits until the decision is as given, such as "n1=2 n2=2".
func (h *hub) shares(name, want string) {
	h.t.Helper()
	h.within("placement "+name+" is decided "+want, func() (bool, any) {
		var got []string
		for _, d := range h.placement(name).Status.Decisions {
			n := "all"
			if d.Replicas != nil {
				n = fmt.Sprint(*d.Replicas)
			}
			got = append(got, d.Cluster+"="+n)
		}
		return strings.Join(got, " ") == want, got
	})
}

// state waits until the cluster is told the objects and burials given.
func (h *hub) state(cluster, objects, burials string) *agentv1.DesiredState {
	h.t.Helper()
	var s *agentv1.DesiredState
	h.within(fmt.Sprintf("%s is told %q and buries %q", cluster, objects, burials), func() (bool, any) {
		s = h.states.State(cluster)
		var have, gone []string
		for _, o := range s.Objects {
			have = append(have, o.Key.Name)
		}
		for _, b := range s.Burials {
			gone = append(gone, b.Key.Name)
		}
		return s.Complete && strings.Join(have, " ") == objects && strings.Join(gone, " ") == burials, s
	})
	return s
}

func (h *hub) tombstones(want ...string) []v1alpha1.Tombstone {
	h.t.Helper()
	list := &v1alpha1.TombstoneList{}
	h.within(fmt.Sprintf("tombstones are %v", want), func() (bool, any) {
		if err := h.client.List(h.t.Context(), list); err != nil {
			return false, err
		}
		var got []string
		for _, t := range list.Items {
			got = append(got, t.Spec.Object.Name+"@"+t.Spec.Clusters[0])
		}
		slices.Sort(got)
		return slices.Equal(got, want), got
	})
	return list.Items
}

func settings(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name, Labels: map[string]string{"app": "ledger"}},
		Data:       map[string]string{"k": "v"},
	}
}

func api(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "api"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "api"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	}
}

func ledger() *v1alpha1.Placement {
	return &v1alpha1.Placement{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"},
		Spec: v1alpha1.PlacementSpec{
			Resources: []v1alpha1.ResourceSelector{
				{APIVersion: "apps/v1", Kind: "Deployment", Name: "api"},
				{APIVersion: "v1", Kind: "ConfigMap", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ledger"}}},
			},
			Clusters: v1alpha1.ClusterSelector{Regions: []string{"north"}},
			Replicas: v1alpha1.ReplicaPolicy{Strategy: v1alpha1.StrategyDivide, By: v1alpha1.DivideByWeight},
		},
	}
}

// report says for a cluster that all it was told is applied, healthy and buried.
func (h *hub) report(cluster string) {
	s := h.states.State(cluster)
	status := &agentv1.AppliedStatus{}
	for _, o := range s.Objects {
		status.Objects = append(status.Objects, &agentv1.AppliedObject{Key: o.Key, Placement: o.Placement, Revision: o.Revision, Applied: true, Healthy: true})
	}
	for _, b := range s.Burials {
		status.Buried = append(status.Buried, b.Tombstone)
	}
	h.reports.Applied(cluster, status)
}
