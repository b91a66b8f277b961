#!/bin/bash
# What a Carob must do on a machine with cgroup v2 alone. Each check writes one line: PASS name, or FAIL name: why. The last line is DONE.
# Its argument says how the Carob runs: plain (carob up -d) or systemd (a unit).
mode=$1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export KUBECONFIG=/var/lib/carob/admin.kubeconfig
group=/sys/fs/cgroup/carob
ln -sf /load/carob /usr/local/bin/carob

. /load/guest/try.sh
k() { carob kubectl "$@"; }
# field of a Pod's status
of() { carob kubectl get pod "$1" -o "jsonpath=$2"; }
cgroup_of() { find $group/kubepods -type d -name "$(of "$1" "{.status.containerStatuses[?(@.name=='$2')].containerID}" | sed 's,.*://,,')"; }
start() {
  if [ "$mode" = systemd ]; then
    systemctl start carob.service
    soon 90 k -n default get serviceaccount default && k wait --for=condition=Ready node --all --timeout=60s
  else
    CAROB_FAILPOINT=$die carob up -d --eviction-hard=none
  fi
}
pid_of_carob() { carob status -o json | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p'; }
containers() { carob kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}'; }
# checkpoint POD CONTAINER: where its archive is
checkpoint() {
  carob kubectl create --raw "/api/v1/nodes/$(k get nodes -o name | cut -d/ -f2)/proxy/checkpoint/default/$1/$2" -f /dev/null >/tmp/answer 2>&1
  local code=$?
  cat /tmp/answer >&2
  sed -n 's/^{"items":\["\(.*\)"\]}$/\1/p' /tmp/answer
  return $code
}
# counter goes on, and nothing is left of a checkpoint but the archive of the first
counts() {
  local was pid; was=$(k exec counter -c main -- cat /count) && pid=$(head -n 1 "$(cgroup_of counter main)/cgroup.procs") || return
  soon 10 sh -c "[ \"\$(carob kubectl exec counter -c main -- cat /count)\" -gt $was ]" && of counter "{.status.containerStatuses[*].restartCount}" | tee /dev/stderr | grep -x '0 0' &&
    [ "$(ls -A /var/lib/carob/checkpoints | tee /dev/stderr | wc -l)" = 1 ] && [ -z "$(ls -d /var/lib/carob/containers/*/checkpoint $group/checkpoint-* 2>/dev/null | tee /dev/stderr)" ] && ! pgrep -a criu &&
    ! nsenter -t "$pid" -n iptables -S | grep CRIU
}
export -f soon k containers of cgroup_of start pid_of_carob checkpoint counts
[ "$mode" = systemd ] || die=runtime/checkpoint/begun@3
export group mode out die

echo "  | $(uname -r), $(nproc) processors, $(sed -n 's/^MemTotal: *//p' /proc/meminfo), first process: $(cat /proc/1/comm), $(crun --version | head -n 1)"
try 'only cgroup v2 is mounted' 'grep -q "/sys/fs/cgroup cgroup2 " /proc/mounts && ! grep -q " cgroup " /proc/mounts'
try 'check finds nothing wrong, with no module loaded yet' carob check

try "start ($mode)" start || {
  tail -n 20 /var/lib/carob/carob.log /var/log/carob.log 2>/dev/null | cut -c 1-300 | sed 's/^/  | /'
  echo DONE
  exit
}
try 'node is Ready' 'k get nodes -o wide | tee /dev/stderr | grep " Ready "'
try 'import images' 'carob image import /load/images/*.tar'
printf 'profile vm-test flags=(attach_disconnected) {\n  file,\n  capability,\n  network,\n  signal,\n  deny /forbidden w,\n}\n' >/tmp/vm-test
[ "$mode" = systemd ] && try 'an AppArmor profile is loaded' 'apparmor_parser -r /tmp/vm-test'
k apply -f /load/guest/pods.yaml >$out 2>&1 || echo "FAIL apply: $(tail -n 1 $out)"
# No registry is reached from here: what was imported must do.
sed 's/^\( *\)image: .*/&\n\1imagePullPolicy: IfNotPresent/' /load/examples/two-containers.yaml >/tmp/two.yaml
k apply -f /tmp/two.yaml >$out 2>&1 || echo "FAIL apply: $(tail -n 1 $out)"
try 'two containers run' 'k wait --for=condition=Ready pod/two-containers --timeout=90s || { k describe pod two-containers; false; }'
try 'Deployment of 2 is available' 'k rollout status deployment/web --timeout=90s || { k describe pods -l app=web; false; }'
try 'both of its Pods are Running' '[ "$(k get pods -l app=web --no-headers | tee /dev/stderr | grep -c "1/1  *Running")" = 2 ]'
try 'the page of the second container, through the Pod IP' 'curl -fsS --max-time 10 "http://$(of two-containers {.status.podIP})/" | tee /dev/stderr | grep "Hello from the debian container"'
try 'a Pod reaches another by its IP' 'k exec deploy/web -- curl -fsS --max-time 10 "http://$(of two-containers {.status.podIP})/" | tee /dev/stderr | grep Hello'
try 'exec sees its peer on localhost' 'k exec two-containers -c debian-container -- curl -fsS --max-time 10 http://127.0.0.1/ | grep Hello'
try 'exec returns the exit code' 'k exec two-containers -c debian-container -- sh -c "exit 7"; [ $? = 7 ]'
try 'logs' 'soon 20 sh -c "carob kubectl logs limited | tee /dev/stderr | grep started"'

try 'cpu limit is in cpu.max' 'f=$(cgroup_of limited main)/cpu.max; cat $f >&2; [ "$(cat $f)" = "20000 100000" ]'
try 'cpu request is in cpu.weight' 'f=$(cgroup_of limited main)/cpu.weight; cat $f >&2; [ "$(cat $f)" = 4 ]'
try 'memory limit is in memory.max' 'f=$(cgroup_of limited main)/memory.max; cat $f >&2; [ "$(cat $f)" = 33554432 ]'
try 'the Pod has limits too' 'd=$(dirname "$(cgroup_of limited main)"); cat $d/cpu.max $d/memory.max >&2; [ "$(cat $d/cpu.max)" = "20000 100000" ] && [ "$(cat $d/memory.max)" = 33554432 ]'
try 'cpu limit throttles' 'soon 20 awk "/^nr_throttled/ { exit !(\$2 > 0) }" "$(cgroup_of limited main)/cpu.stat"'
try 'pids limit is not the machine'\''s' 'cat "$(cgroup_of limited main)/pids.max"'
try 'a container sees its own cgroup as the root' 'got=$(k exec limited -- cat /proc/self/cgroup); echo "code $?, said: $got" >&2; [ "$got" = 0::/ ]'
try 'a Pod has users of its own' 'k wait --for=condition=Ready pod/users --timeout=60s || { k describe pod users; false; }
  k exec users -- sh -c "id -u; cat /proc/self/uid_map; echo x >/v/x && ls -n /v/x; cat /proc/self/cgroup; ls -ldn /bin /etc/hosts" | tee /dev/stderr | tr -s " " >/tmp/users
  grep -x 0 /tmp/users && grep -x " 0 [1-9][0-9]* 65536" /tmp/users && ! grep 65534 /tmp/users && grep -x 0::/ /tmp/users'
try 'its root is nobody on the machine' 'grep -E "^Uid:[[:space:]][1-9][0-9]+" /proc/$(cat "$(cgroup_of users main)/cgroup.procs" | head -n 1)/status'
if [ "$mode" = systemd ]; then
  try 'a container is confined by AppArmor' 'k wait --for=condition=Ready pod/confined --timeout=60s || { k describe pod confined; false; }
    [ "$(k exec confined -- cat /proc/self/attr/current | tee /dev/stderr)" = "vm-test (enforce)" ] && k exec confined -- touch /allowed && ! k exec confined -- touch /forbidden'
else
  try 'a profile that cannot be enforced is refused' 'soon 20 sh -c "carob kubectl get pod confined -o jsonpath={.status.reason} | tee /dev/stderr | grep -x AppArmor"'
fi
try 'OOMKilled' 'soon 60 sh -c "carob kubectl get pod hungry -o jsonpath={.status.containerStatuses[0].state.terminated.reason} | tee /dev/stderr | grep OOMKilled" || { k describe pod hungry; false; }'
try 'OOMKilled has exit code 137' '[ "$(of hungry {.status.containerStatuses[0].state.terminated.exitCode})" = 137 ]'
try 'OOM of a child ends its whole container' 'soon 60 sh -c "carob kubectl get pod hungry-child -o jsonpath={.status.phase} | grep -E \"Failed|Succeeded\""; of hungry-child {.status.containerStatuses[0].state.terminated} >&2; [ "$(of hungry-child "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}")" = "OOMKilled 137" ]'
try 'exit code of a Pod that ends' 'soon 30 sh -c "carob kubectl get pod ends -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode} | tee /dev/stderr | grep 3"'
try 'kill of one container leaves the other and the IP' '
  ip=$(of restarts {.status.podIP}); kill -9 $(cat "$(cgroup_of restarts a)/cgroup.procs")
  soon 40 sh -c "carob kubectl get pod restarts -o jsonpath={.status.containerStatuses[0].restartCount} | grep -x 1"
  of restarts "{.status.podIP} {.status.containerStatuses[*].restartCount}" >&2; [ "$(of restarts "{.status.podIP} {.status.containerStatuses[*].restartCount}")" = "$ip 1 0" ]'
try 'carob tree shows the processes' 'carob tree | tee /dev/stderr | grep nginx'
try 'carob tree knows which namespaces are shared' 'carob tree -o json >/tmp/tree.json; tail -n 5 /tmp/tree.json >&2; grep -A 6 shares /tmp/tree.json | grep net'
try 'stats: kubectl get --raw' 'k get --raw "/api/v1/nodes/$(k get nodes -o name | cut -d/ -f2)/proxy/stats/summary" | tr -d " \n" | grep "\"workingSetBytes\":[1-9]"'

try 'a Pod that counts, by runc' 'k wait --for=condition=Ready pod/counter --timeout=60s && soon 10 k exec counter -- test -s /count || { k describe pod counter; false; }'
try 'checkpoint of a running container' 'f=$(checkpoint counter main) && [ -s "$f" ] && ln -sf "$f" /tmp/checkpoint.tar && [ "$(stat -c %a "$f")" = 600 ]'
try 'its archive has what checkpointctl reads' 'tar tf /tmp/checkpoint.tar >/tmp/names; tr "\n" " " </tmp/names >&2
  for f in config.dump spec.dump status.dump deleted.files rootfs-diff.tar dump.log stats-dump checkpoint/ checkpoint/inventory.img checkpoint/pages-1.img; do grep -qxF $f /tmp/names || { echo "no $f" >&2; exit 1; }; done
  rm -rf /tmp/cp; mkdir /tmp/cp && tar xf /tmp/checkpoint.tar -C /tmp/cp && grep -q "\"/bin/yes\"" /tmp/cp/deleted.files && tar tf /tmp/cp/rootfs-diff.tar | grep -qx count'
try 'crit decodes it: a shell that counts' 'crit show $(ls /tmp/cp/checkpoint/core-*.img | head -n 1) | tee /dev/stderr | grep "\"comm\": \"sh\""'
try 'the container counts on' counts
try 'what CRIU refuses is refused in its words' 'soon 20 k exec counter -c talks -- grep -q " 01 " /proc/net/tcp && ! checkpoint counter talks && grep "OCI runtime checkpoint failed.*Connected TCP socket" /tmp/answer'
try 'both count and talk on' 'counts && k exec counter -c talks -- grep " 01 " /proc/net/tcp'
try 'crun without CRIU says what is in the way' '! checkpoint restarts a && grep "Unimplemented.*+CRIU" /tmp/answer'

containers >/tmp/before
of two-containers {.status.podIP} >/tmp/ip
old=$(pid_of_carob)
how="kill -9 $old"
[ "$mode" = systemd ] || how='! checkpoint counter main' # it dies in the middle of that, by itself
try 'kill -9 of carob' "$how && soon 10 sh -c '! kill -0 $old 2>/dev/null'"
[ "$mode" = systemd ] || try 'Pods go on without it' 'pgrep nginx >/dev/null && curl -fsS --max-time 10 "http://$(cat /tmp/ip)/"'
die=
try 'starts again' start
try 'another process, the same containers' "[ \"\$(pid_of_carob)\" != $old ] && containers | diff /tmp/before - >&2"
try 'nothing is left of a checkpoint that was cut off' counts
try 'exec after the restart' 'k exec two-containers -c debian-container -- true'
try 'scale after the restart' 'k scale deployment/web --replicas=3 && k rollout status deployment/web --timeout=90s'
if [ "$mode" = systemd ]; then
  try 'systemctl restart leaves the Pods' "systemctl restart carob && soon 60 sh -c 'carob status -o json >/dev/null' && k rollout status deployment/web --timeout=60s && k get pod two-containers | grep '2/2 *Running *0'"
  try 'systemctl daemon-reload leaves the limits' 'systemctl daemon-reload && sleep 1 && [ "$(cat "$(cgroup_of limited main)/memory.max")" = 33554432 ]'
fi
try 'delete' 'k delete pod two-containers limited --wait --timeout=60s && [ -z "$(k get pod two-containers -o name --ignore-not-found)" ]'

try 'down' carob down
try 'down leaves no process' 'sleep 1; ! pgrep -a "carob-shim|nginx|pause|^carob$"'
[ "$mode" = systemd ] && try 'the unit has ended' 'soon 10 sh -c "! systemctl is-active carob"'
try 'starts after down' start
try 'Pods come back after down' 'k rollout status deployment/web --timeout=90s'
kill -9 "$(pid_of_carob)"
[ "$mode" = systemd ] && systemctl stop carob 2>/dev/null
try 'uninstall after kill -9' carob uninstall
try 'nothing left: processes' '! pgrep -a "carob|nginx|pause"'
try 'nothing left: mounts' '! grep carob /proc/mounts'
try 'nothing left: cgroups' '[ -z "$(find /sys/fs/cgroup -name "carob*" -not -name "carob.service" | tee /dev/stderr)" ]'
try 'nothing left: links' '! ip -o link | grep -E " (cb|carob)"'
try 'nothing left: routes' '! ip route | grep 10.42'
try 'nothing left: nft tables' '! nft list tables | grep carob'
try 'nothing left: files' '[ -z "$(ls -d /var/lib/carob /run/carob /etc/carob 2>/dev/null | tee /dev/stderr)" ]'
echo DONE
