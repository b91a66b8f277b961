#!/usr/bin/env bash
# Has upstream's e2e suite judge Carob, inside a test host. Needs root and bin/carob.
#
#   test/conformance/run.sh [flags of test/conformance, see its -help]
#
# Fails if a chosen spec that test/conformance/passing.txt names does not pass, or if anything is left behind. Logs: build/conformance/logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
[ "$(id -u)" = 0 ] || { echo "conformance: needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
test/conformance/build.sh

dir=$(mktemp -d /tmp/carob-conformance.XXXXXX)
chmod 711 "$dir" # users of a namespace of their own must find their way
setsid unshare --net --mount --propagation slave sh -c \
  'mount --make-rshared / && ip link set lo up && ip addr add 192.0.2.10/32 dev lo && touch "$1/up" && exec sleep infinity' sh "$dir" &
holder=$!
enter=(nsenter --target "$holder" --net --mount "--wdns=$root")
clean() {
  rm -rf build/conformance/logs
  mkdir -p build/conformance/logs
  cp "$dir"/*.log "$dir"/*.json "$dir"/root/carob.log build/conformance/logs 2>/dev/null || true
  [ -d "$dir/root" ] && "${enter[@]}" bin/carob uninstall --root "$dir/root" || true
  kill "$holder" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean EXIT
until [ -e "$dir/up" ]; do kill -0 "$holder"; sleep 0.05; done
images=$(cd test/conformance/tools && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images
"${enter[@]}" build/conformance/run -dir "$dir" -source "$images" -holder "$holder" "$@"
