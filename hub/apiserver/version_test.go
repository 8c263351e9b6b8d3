package apiserver

import (
	"testing"

	"k8s.io/apiserver/pkg/util/compatibility"
)

// A test's binary does not list its modules, so the version is given here.
func TestVersionIsTheModules(t *testing.T) {
	got := stamped{compatibility.DefaultBuildEffectiveVersion(), "v1.36.3"}.Info()
	if got.GitVersion != "v1.36.3" || got.GitCommit != "" || got.Minor == "" || got.GoVersion == "" {
		t.Errorf("version %+v, want v1.36.3 without a commit and upstream's other fields", got)
	}
}
