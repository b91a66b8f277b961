#!/usr/bin/env bash
# Has the CRI's validation suite judge the Pod runtime, inside a test host. Needs root, bin/carob and build/images.
#
#   test/critest/run.sh [crun|runc]… [-focus REGEXP]
#
# Fails if a spec that test/critest/<runtime>.txt names does not pass, or if anything is left behind. Logs: build/critest-<runtime>/.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
root=$PWD
[ "$(id -u)" = 0 ] || { echo "critest: needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
runtimes=()
while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do runtimes+=("$1"); shift; done
[ ${#runtimes[@]} -gt 0 ] || runtimes=(crun runc)
test/critest/build.sh

dir=$(mktemp -d /tmp/carob-critest.XXXXXX)
chmod 711 "$dir" # users of a namespace of their own must find their way
unshare --net --mount --propagation slave sh -c \
  'mount --make-rshared / && ip link set lo up && ip addr add 192.0.2.10/32 dev lo && touch "$1/up" && exec sleep infinity' sh "$dir" &
holder=$!
enter=(nsenter --target "$holder" --net --mount "--wdns=$root")
clean() {
  for r in "$dir"/*/root; do
    [ -d "$r" ] && "${enter[@]}" bin/carob uninstall --root "$r" || true
  done
  kill "$holder" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean EXIT
until [ -e "$dir/up" ]; do kill -0 "$holder"; sleep 0.05; done
status=0
for name in "${runtimes[@]}"; do
  echo "== $name: $("$name" --version | head -1)"
  mkdir -p "$dir/$name"
  "${enter[@]}" build/critest-run -dir "$dir/$name" -oci-runtime "$name=$name" -list "test/critest/$name.txt" -holder "$holder" "$@" || status=1
  rm -rf "build/critest-$name"
  mkdir -p "build/critest-$name"
  cp "$dir/$name"/*.log "$dir/$name"/report.json "build/critest-$name" 2>/dev/null || true
done
exit $status
