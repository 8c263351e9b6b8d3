package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newFakeHub(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).WithStatusSubresource(&v1alpha1.Cluster{}).Build()
}

func TestAcceptCluster(t *testing.T) {
	cluster := func(joined bool, admission v1alpha1.ClusterAdmission) *v1alpha1.Cluster {
		c := &v1alpha1.Cluster{
			ObjectMeta: metav1.ObjectMeta{Name: "frankfurt-1"},
			Spec:       v1alpha1.ClusterSpec{Region: "north", Center: "north-1", Admission: admission},
		}
		if joined {
			c.Status.Vantages = []v1alpha1.Vantage{{Member: "hub-a", LastHeard: metav1.NowMicro()}}
		}
		return c
	}
	tests := map[string]struct {
		present *v1alpha1.Cluster
		joining joining
		want    string // part of the error; empty means accepted
	}{
		"a new cluster with its place is made":           {joining: joining{region: "north", center: "north-1"}},
		"a new cluster without its place is refused":     {want: "--region and --center"},
		"a pending cluster is accepted":                  {present: cluster(false, v1alpha1.AdmissionPending)},
		"an accepted cluster that has not joined passes": {present: cluster(false, v1alpha1.AdmissionAccepted)},
		"a name that another center has is refused": {
			present: cluster(false, v1alpha1.AdmissionPending),
			joining: joining{region: "north", center: "north-2"},
			want:    "is taken by a cluster in region north, center north-1",
		},
		"a name that has joined is refused": {
			present: cluster(true, v1alpha1.AdmissionAccepted),
			want:    "--rejoin",
		},
		"a name that has joined may join again when asked for": {
			present: cluster(true, v1alpha1.AdmissionAccepted),
			joining: joining{rejoin: true},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if test.present != nil {
				objects = append(objects, test.present)
			}
			api := newFakeHub(t, objects...)
			err := test.joining.accept(t.Context(), api, "frankfurt-1")
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("accept: got %v, want an error with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("accept: %v", err)
			}
			var got v1alpha1.Cluster
			if err := api.Get(t.Context(), client.ObjectKey{Name: "frankfurt-1"}, &got); err != nil {
				t.Fatal(err)
			}
			if got.Spec.Admission != v1alpha1.AdmissionAccepted {
				t.Errorf("admission is %q, want Accepted", got.Spec.Admission)
			}
		})
	}
}

func TestNamespacedName(t *testing.T) {
	tests := map[string]bool{"pay/ledger": true, "ledger": false, "/ledger": false, "pay/": false, "a/b/c": false}
	for text, good := range tests {
		if _, err := namespacedName(text); (err == nil) != good {
			t.Errorf("%q: got %v, want good %t", text, err, good)
		}
	}
}
