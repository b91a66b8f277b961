#!/bin/bash
# Gives the machine swap and huge pages, and looks at what the kernel is told of Pods' memory on cgroup v2.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export KUBECONFIG=/var/lib/carob/admin.kubeconfig
ln -sf /load/carob /usr/local/bin/carob
. /load/guest/try.sh
k() { carob kubectl "$@"; }
# of Pod FILE...: files of its container, or with a / before of the Pod's own cgroup
of() {
  local uid id dir f
  uid=$(carob kubectl get pod "$1" -o 'jsonpath={.metadata.uid}')
  id=$(carob kubectl get pod "$1" -o 'jsonpath={.status.containerStatuses[0].containerID}' | sed 's,.*://,,')
  dir=$(find /sys/fs/cgroup -type d -name "pod$uid")
  shift
  for f in "$@"; do case $f in /*) cat "$dir$f" ;; *) cat "$dir/$id/$f" ;; esac done | xargs | tee /dev/stderr
}
export -f soon k of
export out

dd if=/dev/zero of=/swap bs=1M count=256 status=none && mkswap -q /swap && chmod 600 /swap && swapon /swap
echo 16 >/proc/sys/vm/nr_hugepages
try 'start' carob up -d --memory-swap-behavior LimitedSwap --memory-throttling-factor 0.5 --memory-reservation-policy TieredReservation --pod-max-pids 20 || { echo DONE; exit; }
carob image import /load/images/busybox.tar >/dev/null 2>&1
k apply -f - >/dev/null <<'PODS'
apiVersion: v1
kind: Pod
metadata: {name: burstable}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "100000"], resources: {requests: {memory: 64Mi}, limits: {memory: 128Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: guaranteed}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: huge, emptyDir: {medium: HugePages-2Mi}}]
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, "100000"]
    volumeMounts: [{name: huge, mountPath: /huge}]
    resources: {limits: {cpu: 100m, memory: 32Mi, hugepages-2Mi: 8Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, '(i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done); exec sleep 1000']}
PODS
try 'both run' 'k wait --for=condition=Ready pod/burstable pod/guaranteed --timeout=90s || { k describe pod guaranteed burstable | tail -n 20; false; }'
try 'the node tells its swap and huge pages' 'n=$(k get nodes -o "jsonpath={.items[0].status.nodeInfo.swap.capacity} {.items[0].status.capacity.hugepages-2Mi}"); echo "$n" >&2; [ "$n" = "$(($(sed -n "s/^SwapTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo) * 1024)) 32Mi" ]'
try 'Burstable: kept softly, slowed down half-way' '[ "$(of burstable memory.low memory.min memory.high /memory.low)" = "67108864 0 100663296 67108864" ]'
try 'Burstable: its share of the swap' 'n=$(of burstable memory.swap.max); m=$(sed -n "s/^MemTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo); s=$(sed -n "s/^SwapTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo)
  want=$((67108864 * s / m)); [ $((n / 8192)) = $((want / 8192)) ] || { echo "want about $want" >&2; false; }'
try 'Guaranteed: kept firmly, not slowed down, does not swap' '[ "$(of guaranteed memory.min memory.low memory.high memory.swap.max /memory.min)" = "33554432 0 max 0 33554432" ]'
try 'the levels have what their Pods request' 'd=$(dirname "$(find /sys/fs/cgroup -type d -name burstable)"); cat $d/memory.min $d/memory.low $d/burstable/memory.low | xargs | tee /dev/stderr | grep -x "33554432 67108864 67108864"'
try 'huge pages: limited, and mounted' '[ "$(of guaranteed hugetlb.2MB.max /hugetlb.2MB.max)" = "8388608 8388608" ] && k exec guaranteed -- grep "/huge hugetlbfs.*pagesize=2M" /proc/mounts'
try 'more huge pages than there are' 'k run greedy --image=busybox --restart=Never --overrides="{\"spec\":{\"containers\":[{\"name\":\"greedy\",\"image\":\"busybox\",\"resources\":{\"limits\":{\"cpu\":\"10m\",\"memory\":\"8Mi\",\"hugepages-2Mi\":\"64Mi\"}}}]}}" &&
  soon 10 sh -c "carob kubectl describe pod greedy | tee /dev/stderr | grep \"Insufficient hugepages-2Mi\""'
try 'no more processes than allowed' 'soon 30 sh -c "carob kubectl logs forks | tee /dev/stderr | grep -i \"fork: \""; [ "$(of forks /pids.max)" = 20 ]'
try 'a resize takes the files along' 'k patch pod burstable --subresource resize -p "{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"requests\":{\"memory\":\"96Mi\"},\"limits\":{\"memory\":\"160Mi\"}}}]}}" >&2 &&
  soon 20 bash -c "[ \"\$(of burstable memory.low memory.high /memory.low)\" = \"100663296 134217728 100663296\" ]"; [ "$(of burstable memory.swap.max)" != 0 ]'
try 'what is gone is not kept' 'k delete pod burstable guaranteed && d=$(dirname "$(find /sys/fs/cgroup -type d -name burstable)"); soon 10 bash -c "[ \"\$(cat $d/memory.min $d/memory.low | xargs)\" = \"0 0\" ]"'

# What is free now, less 300 MiB: a Pod that takes more than that is the one to end.
left=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
try 'starts with a threshold of memory' "carob down && carob up -d --eviction-hard 'memory.available<$((left / 1024 - 300))Mi' --eviction-pressure-transition-period 5s"
k apply -f - >/dev/null <<'PODS'
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "100000"], resources: {requests: {memory: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy-now}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: m, emptyDir: {medium: Memory}}]
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "dd if=/dev/zero of=/m/f bs=1M count=500; sleep 100000"]
    volumeMounts: [{name: m, mountPath: /m}]
    resources: {requests: {memory: 16Mi}}
PODS
try 'the one that takes most is evicted' 'soon 60 sh -c "carob kubectl get pod greedy-now -o jsonpath={.status.reason} | tee /dev/stderr | grep -x Evicted" || { k describe node | tail -n 30; false; }'
try 'and is told why' 'k get pod greedy-now -o "jsonpath={.status.message}" | tee /dev/stderr | grep "The node was low on resource: memory. Threshold quantity: .* Container main was using .*, request is 16Mi, has larger consumption of memory."'
try 'the other runs on' 'k get pod modest | tee /dev/stderr | grep "1/1 *Running *0"'
try 'the pressure is told, and goes' 'k get events -A | tee /dev/stderr | grep -q "NodeHasInsufficientMemory\|EvictionThresholdMet"; soon 60 sh -c "carob kubectl get nodes -o jsonpath={.items[0].status.conditions[?\(@.type==\\\"MemoryPressure\\\"\)].status} | tee /dev/stderr | grep -x False"'
try 'uninstall' 'carob down && carob uninstall'
echo DONE
