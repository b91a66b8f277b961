//go:build tools

// Package tools names the programs that judge Carob and that the judge's images hold. Their module is apart from the product's, so that
// nothing of them can reach it.
package tools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
	_ "k8s.io/kubernetes/test/images/nonewprivs"
)
