#!/usr/bin/env bash
# Builds minio into build/minio. The first time takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
out=$PWD/build/minio
mkdir -p "$out"
cd test/minio
nice go build -ldflags '-s -w' -o "$out/" github.com/minio/minio
