//go:build tools

// Package tools names the programs of others that the tests drive Carob with. Their module is apart from the product's, so that
// nothing of them can reach it.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kubectl"
)
