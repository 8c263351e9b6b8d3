package controller

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// The first boot of a lab found this: three clusters that were announced and had
// not joined yet were taken for three centers lost at once.
func TestOnlyAClusterThatWasHeardCanBeLost(t *testing.T) {
	tests := map[string]struct {
		status v1alpha1.ClusterStatus
		want   bool
	}{
		"announced and never heard":                {want: false},
		"announced, and listed as heard by nobody": {status: v1alpha1.ClusterStatus{Vantages: []v1alpha1.Vantage{{Member: "hub-a"}}}, want: false},
		"heard by a member": {
			status: v1alpha1.ClusterStatus{Vantages: []v1alpha1.Vantage{{Member: "hub-a", LastHeard: metav1.NowMicro()}}}, want: true,
		},
		"heard before, by nobody since the hub restarted": {
			status: v1alpha1.ClusterStatus{Kubernetes: &v1alpha1.KubernetesStatus{Nodes: 1}}, want: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			accepted := v1alpha1.ClusterSpec{Admission: v1alpha1.AdmissionAccepted}
			cluster := &v1alpha1.Cluster{Spec: accepted, Status: test.status}
			if got := cluster.HasJoined(); got != test.want {
				t.Errorf("HasJoined is %t, want %t", got, test.want)
			}
		})
	}
}
