#!/usr/bin/env bash
# Builds the stock kubectl that the tests use: build/kubectl. Does nothing where it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v1.37.2
[ ! -x build/kubectl ] || exit 0
echo "building kubectl $version"
v=k8s.io/component-base/version
out=$PWD/build/kubectl
cd test/tools
CGO_ENABLED=0 go build -trimpath -o "$out" \
  -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=37 -X $v.gitTreeState=clean" k8s.io/kubernetes/cmd/kubectl
