package controller

import (
	"testing"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// The first boot of a lab found this: three clusters that were announced and had
// not joined yet were taken for three centers lost at once.
func TestOnlyAClusterThatWasHeardCanBeLost(t *testing.T) {
	tests := map[string]struct {
		status v1alpha1.ClusterStatus
		want   bool
	}{
		"announced and never heard": {want: false},
		"heard by a member":         {status: v1alpha1.ClusterStatus{Vantages: []v1alpha1.Vantage{{Member: "hub-a"}}}, want: true},
		"heard before, by nobody since the hub restarted": {
			status: v1alpha1.ClusterStatus{Kubernetes: &v1alpha1.KubernetesStatus{Nodes: 1}}, want: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := joined(&v1alpha1.Cluster{Status: test.status}); got != test.want {
				t.Errorf("joined is %t, want %t", got, test.want)
			}
		})
	}
}
