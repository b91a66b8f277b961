#!/usr/bin/env bash
# Has the agent drive other CRI runtimes (containerd with runc and CNI plugins, and `carob runtime`) inside test hosts. Needs root, bin/carob
# and build/images.
#
#   test/containerd/run.sh [-run REGEXP]
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
root=$PWD
[ "$(id -u)" = 0 ] || { echo "containerd: needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
export CAROB_BINARY=${CAROB_BINARY:-$root/bin/carob}
[ -x "$CAROB_BINARY" ] || { echo "containerd: $CAROB_BINARY is missing: make build" >&2; exit 1; }
test/tools/kubectl.sh
go build -trimpath -o build/registry ./test/registry
mkdir -p build/containerd
cd test/containerd
containerd=github.com/containerd/containerd/v2 plugins=github.com/containernetworking/plugins/plugins
version=$(go list -m -f '{{.Version}}' $containerd)
go build -trimpath -ldflags "-s -w -X $containerd/version.Version=$version" -o "$root/build/containerd/" \
  $containerd/cmd/containerd $containerd/cmd/containerd-shim-runc-v2 $containerd/cmd/ctr $plugins/ipam/host-local $plugins/main/bridge $plugins/main/loopback $plugins/meta/portmap
go test -trimpath -c -o "$root/build/containerd.test" .

TMPDIR=$(mktemp -d /tmp/carob-containerd.XXXXXX)
export TMPDIR PROGRAMS=$root/build/containerd KUBECTL_BINARY=$root/build/kubectl REGISTRY_BINARY=$root/build/registry IMAGE_FOLDER=$root/build/images
trap 'rm -rf "$TMPDIR"' EXIT
args=()
for a in "$@"; do
  case $a in -run | -v | -count) args+=("-test.${a#-}") ;; *) args+=("$a") ;; esac
done
status=0
"$root/build/containerd.test" -test.v -test.count=1 -test.timeout=15m "${args[@]}" 2>&1 | tee "$root/build/containerd.log" | grep --line-buffered -v '^=== ' || true
status=${PIPESTATUS[0]}
passed=$(grep -cE '^ *--- PASS' "$root/build/containerd.log" || true)
failed=$(grep -cE '^ *--- FAIL' "$root/build/containerd.log" || true)
echo "$passed passed, $failed failed"
exit "$status"
