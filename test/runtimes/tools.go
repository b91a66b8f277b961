//go:build tools

// Package runtimes names the OCI runtimes that the runtime's tests run on beside those of the distribution. Their module is apart from the
// product's, so that nothing of them can reach it.
package runtimes

import _ "github.com/opencontainers/runc"
