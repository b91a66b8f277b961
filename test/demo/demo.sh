#!/usr/bin/env bash
# The demo: from a clean clone to the examples in a cluster of their own, each step with its time. Needs root, Linux and Go.
#
#   test/demo/demo.sh          leaves the cluster running until Ctrl-C, which stops its Pods and leaves nothing
#   ONCE=1 test/demo/demo.sh   does all of it, checks it, cleans up, and fails if anything was not as it should be
#
# Everything has its name from $ROOT, so that the demo runs beside any other Carob of this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."

ROOT=${ROOT:-/var/tmp/carob-demo}
ONCE=${ONCE:-}
export KUBECONFIG=$ROOT.kubeconfig CAROB_ROOT=$ROOT
certs=$ROOT.certs.d
page=/var/tmp/carob-example-page # the folder that the examples name
page_is_ours=
registry=
sleeper=
started=
carob=$PWD/bin/carob
id=$(printf %s "$ROOT" | sha256sum | cut -c1-8)

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' off=$'\e[0m'; else bold='' off=''; fi
now() { date +%s%3N; }
count=0
# step WHAT COMMAND…: says what is done, does it, and says how long it took.
step() {
  count=$((count + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$count" "$1" "$off"
  local begin
  begin=$(now)
  shift
  "$@"
  local took=$(($(now) - begin))
  printf '   took %d.%03d s\n' $((took / 1000)) $((took % 1000))
}
fail() { echo "demo: $*" >&2; exit 1; }
kubectl() { echo "# kubectl $*"; "$carob" kubectl "$@"; }

# end stops the Pods gracefully and leaves nothing, whatever the demo had come to.
end() {
  local code=$?
  trap '' INT TERM
  trap - EXIT
  if [ -n "$started" ]; then
    step 'Stop the Pods, then the cluster, and leave nothing' clean || code=1
  fi
  if [ -n "$sleeper" ]; then kill "$sleeper" 2>/dev/null || true; fi
  if [ -n "$registry" ]; then kill "$registry" 2>/dev/null || true; fi
  if [ -n "$page_is_ours" ]; then rm -rf "$page"; fi
  rm -rf "$certs" "$KUBECONFIG"
  if [ -n "$ONCE" ] && [ "$code" = 0 ]; then printf '\n%sAll was as it should be.%s\n' "$bold" "$off"; fi
  exit "$code"
}
clean() {
  "$carob" uninstall --root "$ROOT" || return 1
  local left=()
  for path in "$ROOT" "/run/carob-$id" /sys/fs/cgroup/*/"carob-$id" "/sys/fs/cgroup/carob-$id"; do
    [ ! -e "$path" ] || left+=("$path")
  done
  if pgrep -f -- "$ROOT/" >/dev/null; then left+=("processes: $(pgrep -f -- "$ROOT/" | tr '\n' ' ')"); fi
  if nft list tables 2>/dev/null | grep -q "carob_$id"; then left+=("the nft table carob_$id"); fi
  [ ${#left[@]} = 0 ] || { echo "demo: left behind: ${left[*]}" >&2; return 1; }
}

free_port() {
  local p
  for p in $(seq "$1" $(($1 + 200))); do
    ss -Hltn "sport = :$p" | grep -q . || { echo "$p"; return; }
  done
  fail "no port is free between $1 and $(($1 + 200))"
}

build() { make --no-print-directory build; }
can_pull() { curl -s -o /dev/null --head --max-time 3 https://registry-1.docker.io/v2/; }
offline_images() {
  echo '   docker.io cannot be reached. The images nginx, debian and busybox are built here instead, from Debian packages; nginx:1.8 is a'
  echo '   stand-in for that version. A registry on loopback serves them, to this cluster alone, as if it were docker.io.'
  make --no-print-directory test-images
  go build -o build/registry ./test/registry
  # Apart from this terminal: Ctrl-C is for the demo, which ends the registry last.
  setsid build/registry -addr 127.0.0.1:0 -images build/images -hosts "$certs" >"$certs.log" 2>&1 &
  registry=$!
  local i
  for i in $(seq 100); do
    [ -e "$certs/docker.io/hosts.toml" ] && { rm -f "$certs.log"; return; }
    kill -0 "$registry" 2>/dev/null || { cat "$certs.log"; fail 'the registry did not start'; }
    sleep 0.1
  done
  fail 'the registry did not come up'
}
up() {
  started=yes
  "$carob" up -d --root "$ROOT" --eviction-hard=none --kubeconfig "$KUBECONFIG" --registry-config-dir "$certs" --api-port "$(free_port 6443)"
}
apply() {
  if [ ! -e "$page" ]; then page_is_ours=yes; fi
  kubectl apply -f examples/two-containers.yaml -f examples/nginx-deployment.yaml
  kubectl wait --for=condition=Ready pod/two-containers --timeout=120s
  kubectl rollout status deployment/nginx-deployment --timeout=120s
  kubectl get pods -o wide
}
tree() {
  echo '# carob tree'
  "$carob" tree
}
read_page() {
  local ip text
  ip=$("$carob" kubectl get pod two-containers -o 'jsonpath={.status.podIP}')
  echo "# curl http://$ip/"
  text=$(curl -sS --noproxy '*' --max-time 5 "http://$ip/")
  echo "$text"
  [ "$text" = 'Hello from the debian container' ] || fail "nginx served something else: $text"
  kubectl exec two-containers -c nginx-container -- cat /usr/share/nginx/html/index.html
  for ip in $("$carob" kubectl get pods -l app=nginx -o 'jsonpath={.items[*].status.podIP}'); do
    echo "# curl http://$ip/"
    curl -sS --noproxy '*' --max-time 5 "http://$ip/"
  done
}
check() {
  local tree
  tree=$("$carob" tree -o json)
  [ "$(jq '[.. | objects | select(.kind? == "Pod")] | length' <<<"$tree")" = 5 ] || fail "carob tree does not have 5 Pods: $tree"
  [ "$("$carob" kubectl get deployment nginx-deployment -o 'jsonpath={.status.readyReplicas}')" = 4 ] || fail 'the Deployment has not 4 ready replicas'
  [ "$("$carob" kubectl get nodes --no-headers | awk '{print $2}')" = Ready ] || fail 'the node is not Ready'
  [ "$(cat "$page/index.html")" = 'Hello from the debian container' ] || fail 'the machine does not see the page'
}

[ "$(id -u)" = 0 ] || fail 'needs root: containers need namespaces, mounts and cgroups. Try: sudo make demo'
command -v go >/dev/null || fail 'needs Go 1.26 or newer in $PATH'
begin=$(now)
trap end EXIT
trap 'exit 130' INT TERM

step 'Install what is missing of crun, nftables and some tools (Debian packages)' ./test/deps.sh
step 'Build bin/carob' build
if "$carob" status --root "$ROOT" >/dev/null 2>&1; then
  fail "a demo runs already in $ROOT: end it with Ctrl-C where it runs, or with: bin/carob uninstall --root $ROOT"
fi
if [ -e "$ROOT" ]; then
  started=yes
  step "Remove what an earlier demo left in $ROOT" clean
fi
mkdir -p "$certs"
if can_pull; then
  echo
  echo 'The images come from docker.io.'
else
  step 'Make images without docker.io' offline_images
fi
step "Start a one-node cluster in $ROOT" up
step 'Apply the Pod of two containers and the nginx Deployment' apply
step 'Draw what owns what, down to the processes' tree
step 'Read, through nginx, the page that the other container wrote' read_page
if [ -n "$ONCE" ]; then
  step 'Check' check
  exit 0
fi
took=$(($(now) - begin))
cat <<END

${bold}The demo took $((took / 1000)) s. The cluster runs until Ctrl-C.${off} In another terminal:
  export KUBECONFIG=$KUBECONFIG CAROB_ROOT=$ROOT PATH=\$PATH:$PWD/bin
  carob kubectl get pods -o wide
  carob tree deployment nginx-deployment
  carob kubectl scale deployment nginx-deployment --replicas=2
  carob kubectl exec -it two-containers -c debian-container -- bash
END
sleep infinity &
sleeper=$!
wait "$sleeper" || true
