//go:build tools

// Package tools names the outside judge of the Pod runtime and the client that operators use with it. Their module is apart from
// the product's, so that nothing of them can reach it.
package tools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/cmd/critest"
)
