package apiserver

import (
	"runtime/debug"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"
)

// stamped answers /version with the version of Kubernetes that is built in.
// Upstream expects it from the linker; clients refuse the placeholder.
type stamped struct {
	compatibility.EffectiveVersion
	version string
}

func (s stamped) Info() *apiversion.Info {
	info := *s.EffectiveVersion.Info()
	info.GitVersion, info.GitCommit, info.GitTreeState = s.version, "", ""
	return &info
}

// stampVersion leaves v alone if the build does not say which Kubernetes is in it.
func stampVersion(v compatibility.EffectiveVersion) compatibility.EffectiveVersion {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, module := range build.Deps {
		if module.Path == "k8s.io/kubernetes" && strings.HasPrefix(module.Version, "v") {
			return stamped{v, module.Version}
		}
	}
	return v
}
