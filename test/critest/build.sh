#!/usr/bin/env bash
# Builds the CRI's validation suite, crictl, and what goes into the images that the suite asks for: build/{critest,crictl,critest-run,critest-tools,busybox}.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
root=$PWD
(cd test/critest/tools && go build -trimpath -o "$root/build/crictl" sigs.k8s.io/cri-tools/cmd/crictl &&
  go test -trimpath -c -o "$root/build/critest" sigs.k8s.io/cri-tools/cmd/critest)
mkdir -p build/critest-tools
go build -trimpath -o build/critest-run ./test/critest
go build -trimpath -ldflags '-s -w' -o build/critest-tools/nnp ./test/critest/nnp
test/tools/busybox.sh
