#!/usr/bin/env bash
# Builds upstream's e2e suite, its ginkgo, and what goes into the images that the suite asks for, into build/conformance. The first time takes
# long (docs/conformance.md says how long).
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
out=$PWD/build/conformance
mkdir -p "$out"
# Some specs go by the suite's own version.
v=k8s.io/component-base/version
version="-X $v.gitVersion=v1.37.2 -X $v.gitMajor=1 -X $v.gitMinor=37"
# -vet=off: vetting all that the suite imports takes half an hour.
(cd test/conformance/tools &&
  nice go test -c -vet=off -ldflags "$version" -o "$out/e2e.test" k8s.io/kubernetes/test/e2e &&
  nice go build -ldflags '-s -w' -o "$out/" github.com/onsi/ginkgo/v2/ginkgo k8s.io/kubernetes/test/images/agnhost k8s.io/kubernetes/test/images/nonewprivs)
go build -ldflags '-s -w' -o "$out/" ./test/conformance/pause ./test/conformance/sh
go build -o "$out/run" ./test/conformance
test/tools/kubectl.sh
test/tools/busybox.sh
go run ./test/images/build -out "$out/images" -also network
