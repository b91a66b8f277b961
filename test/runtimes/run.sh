#!/usr/bin/env bash
# Runs the tests of internal/runtime on other OCI runtimes than the distribution's crun: its runc, and a recent runc that is built here, each as
# the default and as the handler "runc". Needs root, a C compiler and libseccomp's headers.
#
#   test/runtimes/run.sh [-run REGEXP] [more flags of go test]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
[ "$(id -u)" = 0 ] || { echo "runtimes: needs root: the tests make namespaces, mounts and cgroups" >&2; exit 1; }
missing=()
for p in gcc pkg-config libc6-dev libseccomp-dev; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] || { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }
mkdir -p build/runtimes
(cd test/runtimes && CGO_ENABLED=1 go build -trimpath -tags seccomp -o "$root/build/runtimes/runc" github.com/opencontainers/runc)
export CGO_ENABLED=0
go test -trimpath -c -o build/runtime.test ./internal/runtime
args=()
for a in "$@"; do
  case $a in -run | -v | -count | -short) args+=("-test.${a#-}") ;; *) args+=("$a") ;; esac
done
status=0
for runtime in runc "$root/build/runtimes/runc"; do
  echo "$("$runtime" --version | head -1) at $(command -v "$runtime")"
  (cd internal/runtime && CAROB_TEST_OCI_RUNTIME=$runtime CAROB_TEST_RUNC=$runtime "$root/build/runtime.test" -test.timeout 10m "${args[@]}" 2>&1 |
    grep -v ' level=') || status=1
done
exit $status
