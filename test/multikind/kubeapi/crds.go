package kubeapi

import (
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// InstallKinds installs Tripod's CRDs and waits until they are served.
func InstallKinds(t testing.TB, config *rest.Config) {
	t.Helper()
	_, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		Paths: []string{filepath.Join(root(t), "hub/api/crds")}, ErrorIfPathMissing: true,
	})
	if err != nil {
		t.Fatalf("install the CRDs: %v", err)
	}
}
