package apiserver

import (
	goruntime "runtime"
	"time"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"

	"carob.dev/carob/internal/version"
)

// effectiveVersion is the version that the API machinery works by, with what /version tells set by this build.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
}

func newEffectiveVersion() effectiveVersion {
	return effectiveVersion{compatibility.DefaultBuildEffectiveVersion()}
}

// Info implements basecompatibility.EffectiveVersion.
func (v effectiveVersion) Info() *apiversion.Info {
	info := v.EffectiveVersion.Info()
	build := version.Get()
	info.GitVersion, info.GitCommit, info.GitTreeState = version.KubernetesVersion+"+carob", build.Commit, "clean"
	info.BuildDate = time.Unix(0, 0).UTC().Format(time.RFC3339)
	info.GoVersion, info.Compiler, info.Platform = build.Go, goruntime.Compiler, build.Platform
	return info
}
