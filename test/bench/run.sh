#!/usr/bin/env bash
# Measures speed and weight inside a test host of its own. Needs root, bin/carob and build/images.
#
#   test/bench/run.sh [-runs N] [-o FILE] [-list]      ONLY=name,name runs some measurements
#
# CAROB_BINARY names another program to measure; BENCH_DIR a folder on the disk to measure (default: /var/tmp).
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
[ "$(id -u)" = 0 ] || { echo "bench: needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
go build -trimpath -o build/bench ./test/bench
case " $* " in *" -list "*) exec build/bench -list ;; esac

dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/carob-bench.XXXXXX")
# An address that is not the loopback's, as a machine has.
unshare --net --mount --propagation slave sh -c \
  'mount --make-rshared / && ip link set lo up && ip addr add 192.0.2.10/32 dev lo && touch "$1/up" && exec sleep infinity' sh "$dir" &
holder=$!
enter=(nsenter --target "$holder" --net --mount "--wdns=$PWD")
clean() {
  for root in "$dir"/root*[0-9]; do
    [ -d "$root" ] && "${enter[@]}" "${CAROB_BINARY:-bin/carob}" uninstall --root "$root" || true
  done
  kill "$holder" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean EXIT
until [ -e "$dir/up" ]; do kill -0 "$holder"; sleep 0.05; done
"${enter[@]}" build/bench -dir "$dir" -binary "${CAROB_BINARY:-bin/carob}" "$@"
