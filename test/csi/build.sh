#!/usr/bin/env bash
# Builds the test driver and Kubernetes' standard sidecars for storage drivers into build/csi. The first time takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
out=$PWD/build/csi
mkdir -p "$out"
cd test/csi
nice go build -ldflags '-s -w' -o "$out/" ./driver github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher \
  github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer
