#!/bin/bash
# What a Carob must do on a machine with cgroup v2 alone where systemd makes the cgroups (--cgroup-driver systemd). Lines as in checks.sh.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export KUBECONFIG=/var/lib/carob/admin.kubeconfig
ln -sf /load/carob /usr/local/bin/carob
. /load/guest/try.sh
k() { carob kubectl "$@"; }
of() { carob kubectl get pod "$1" -o "jsonpath=$2"; }
# scope_of Pod: the cgroup of its first container
scope_of() { find /sys/fs/cgroup/carob.slice -type d -name "carob-$(of "$1" '{.status.containerStatuses[0].containerID}' | sed 's,.*://,,').scope"; }
export -f soon k of scope_of
export out

try 'D-Bus runs' 'soon 60 busctl status >/dev/null'
try 'check finds nothing wrong' carob check --cgroup-driver systemd
try 'start' carob up -d --cgroup-driver systemd || {
  tail -n 20 /var/lib/carob/carob.log | cut -c 1-300 | sed 's/^/  | /'
  echo DONE
  exit
}
try 'import images' 'carob image import /load/images/*.tar'
try 'apply' 'soon 90 k apply --validate=false -f /load/guest/pods.yaml'
try 'a Pod with limits runs' 'k wait --for=condition=Ready pod/limited --timeout=90s || { k describe pod limited; false; }'
try 'its container is a scope in the slice of the Pod' 'd=$(scope_of limited); echo $d >&2; u=$(of limited {.metadata.uid} | tr - _)
  [[ $d == /sys/fs/cgroup/carob.slice/carob-kubepods.slice/carob-kubepods-burstable.slice/carob-kubepods-burstable-pod$u.slice/carob-*.scope ]]'
try 'systemd knows both' 'systemctl is-active "$(basename "$(scope_of limited)")" "$(basename "$(dirname "$(scope_of limited)")")"'
# limits of a cgroup; those of a container are in crun's own below the scope
limits() { cat "$1/cpu.max" "$1/cpu.weight" "$1/memory.max" | xargs | tee /dev/stderr; }
export -f limits
try 'limits of the container' '[ "$(limits "$(scope_of limited)/container")" = "20000 100000 4 33554432" ]'
try 'limits of the Pod' '[ "$(limits "$(dirname "$(scope_of limited)")")" = "20000 100000 4 33554432" ]'
try 'daemon-reload leaves the limits' 'systemctl daemon-reload && sleep 1 && [ "$(limits "$(scope_of limited)/container")" = "20000 100000 4 33554432" ] &&
  [ "$(limits "$(dirname "$(scope_of limited)")")" = "20000 100000 4 33554432" ]'
try 'resize' 'k patch pod limited --subresource resize -p "{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"300m\",\"memory\":\"48Mi\"}}}]}}" &&
  soon 20 grep -q 50331648 "$(scope_of limited)/container/memory.max" && systemctl daemon-reload && sleep 1 && [ "$(limits "$(scope_of limited)/container")" = "30000 100000 4 50331648" ] &&
  [ "$(of limited "{.status.containerStatuses[0].restartCount}")" = 0 ]'
try 'exec is in the scope' 'k exec limited -- sleep 60 & soon 40 bash -c "[ \$(wc -l <$(scope_of limited)/container/cgroup.procs) = 2 ]"'
try 'OOMKilled' 'soon 60 sh -c "carob kubectl get pod hungry -o jsonpath={.status.containerStatuses[0].state.terminated.reason} | tee /dev/stderr | grep OOMKilled" || { k describe pod hungry; false; }'
try 'statistics' 'k get --raw "/api/v1/nodes/$(k get nodes -o name | cut -d/ -f2)/proxy/stats/summary" | tr -d " \n" | grep "\"workingSetBytes\":[1-9]"'
try 'the tree shows the processes' 'carob tree pod limited | tee /dev/stderr | grep "sh .*echo started"'
old=$(carob status -o json | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p')
try 'kill -9 of carob, and another' "kill -9 $old && soon 10 sh -c '! kill -0 $old 2>/dev/null' && carob up -d --cgroup-driver systemd && k get pod limited | tee /dev/stderr | grep '1/1 *Running *0'"
slice=$(dirname "$(scope_of limited)")
try 'delete takes the slice away' "[ -d $slice ] && k delete pod limited --timeout=60s && soon 10 sh -c '! test -e $slice' && ! systemctl is-active $(basename "$slice")"
try 'uninstall' 'carob down && carob uninstall'
try 'nothing left' '[ -z "$(find /sys/fs/cgroup -name "carob*" | tee /dev/stderr)" ] && ! systemctl list-units --all --plain --no-legend "carob*" | tee /dev/stderr | grep . && ! pgrep -a "carob|nginx|pause"'
echo DONE
