#!/usr/bin/env bash
# Runs the end-to-end tests: a Carob in a test host, seen through the stock kubectl. Needs root, bin/carob and build/images.
#
#   test/e2e/run.sh [-run REGEXP] [more flags of go test]
#
# Fails if a test that test/e2e/passing.txt names does not pass; tells the state of the others.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
root=$PWD

[ "$(id -u)" = 0 ] || { echo "e2e: needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
export CAROB_BINARY=${CAROB_BINARY:-$root/bin/carob}
[ -x "$CAROB_BINARY" ] || { echo "e2e: $CAROB_BINARY is missing: make build" >&2; exit 1; }
ls build/images/*.tar >/dev/null 2>&1 || { echo "e2e: build/images is empty: make test-images" >&2; exit 1; }
test/tools/kubectl.sh
[ -x build/kubectl-tree ] || (cd test/tools/kubectl-tree && go build -trimpath -o "$root/build/kubectl-tree" ./cmd/kubectl-tree)
go build -trimpath -o build/registry ./test/registry
go test -c -tags "${TAGS:-e2e}" -o build/e2e.test ./test/e2e

# All that the tests write lies in one folder. A run that is cut short leaves the hosts it had there: they are ended here.
TMPDIR=$(mktemp -d /tmp/carob-e2e.XXXXXX)
export TMPDIR
clean() {
  for note in "$TMPDIR"/host-*; do
    [ -e "$note" ] || continue
    holder=${note##*/host-}
    r=$(cat "$note")
    enter=(nsenter --target "$holder" --net --mount)
    "${enter[@]}" "$CAROB_BINARY" uninstall --root "$r" || true
    # whoever still lives in the host's network namespace
    for pid in $(find -L /proc/[0-9]*/ns/net -maxdepth 0 -samefile "/proc/$holder/ns/net" 2>/dev/null | cut -d/ -f3); do
      kill -9 "$pid" 2>/dev/null || true
    done
  done
  rm -rf build/e2e-logs
  mkdir -p build/e2e-logs
  cp "$TMPDIR"/carob-*.log build/e2e-logs 2>/dev/null || true
  rm -rf "$TMPDIR"
}
trap clean EXIT

export KUBECTL_BINARY=$root/build/kubectl KUBECTL_TREE=$root/build/kubectl-tree REGISTRY_BINARY=$root/build/registry IMAGE_FOLDER=$root/build/images
log=$root/build/e2e.log
args=()
for a in "$@"; do
  case $a in -run | -v | -count | -parallel | -timeout | -failfast) args+=("-test.${a#-}") ;; *) args+=("$a") ;; esac
done
status=0
(cd test/e2e && "$root/build/e2e.test" -test.v -test.count=1 -test.timeout=25m -test.parallel=4 "${args[@]}") 2>&1 | tee "$log" |
  grep --line-buffered -v -E '^(=== |    --- (PASS|SKIP)|        --- (PASS|SKIP))' || true
status=${PIPESTATUS[0]}

# What passed and what did not, by name.
sed -nE 's/^ *--- (PASS|FAIL|SKIP): ([^ ]+) .*/\1 \2/p' "$log" | sort -u >build/e2e.results
bad=0
while read -r name; do
  case $name in '' | '#'*) continue ;; esac
  state=$(awk -v n="$name" '$2 == n {print $1}' build/e2e.results)
  if [ -z "$state" ] && [ $# -gt 0 ]; then continue; fi # not chosen by -run
  [ "$state" = PASS ] || { echo "e2e: $name should pass, but: ${state:-it did not run}"; bad=$((bad + 1)); }
done <test/e2e/passing.txt
awk '{print $2}' build/e2e.results | while read -r name; do
  grep -qxF "$name" test/e2e/passing.txt || awk -v n="$name" '$2 == n {print "e2e: not in passing.txt: " $1 " " n}' build/e2e.results
done
passed=$(grep -c '^PASS' build/e2e.results || true)
failed=$(grep -c '^FAIL' build/e2e.results || true)
echo "$passed passed, $failed failed"
[ "$bad" = 0 ] && [ "$passed" -gt 0 ]
