//go:build minio

// Package minio keeps the version of minio that build.sh builds.
package minio

import (
	_ "github.com/minio/minio"
)
