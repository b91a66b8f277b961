package apiserver

import (
	"sync"

	"k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// turnOff switches off what the machinery would do all the time and nobody here needs. The switches belong to the process.
var turnOff = sync.OnceFunc(func() {
	_ = utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{
		string(features.APIServerIdentity):        false, // a lease renewed for ever, of use among several servers only
		string(features.DetectCacheInconsistency): false, // compares each cache with the store every few minutes
		string(features.StorageVersionHash):       false,
	})
})
