#!/bin/bash
# Has systemd-logind shut the machine down while Pods run: it waits for them, those of the system end last, and the API knows before it goes on.
# Holds the machine up itself until it has looked.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export KUBECONFIG=/var/lib/carob/admin.kubeconfig
. /load/guest/try.sh
k() { carob kubectl "$@"; }
locks() { systemd-inhibit --list --no-legend | grep carob; }
told() { [ "$(k get pod "$1" -o 'jsonpath={.status.phase} {.status.reason} {.status.conditions[?(@.type=="DisruptionTarget")].reason}' | tee /dev/stderr)" = 'Failed Terminated TerminationByKubelet' ]; }
export -f soon k locks told
export out

mkdir -p /etc/systemd/system/carob.service.d
printf '[Service]\nEnvironment=CAROB_SHUTDOWN_GRACE_PERIOD=30s CAROB_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS=10s\n' >/etc/systemd/system/carob.service.d/shutdown.conf
systemctl daemon-reload
try 'starts' 'systemctl start carob && soon 60 sh -c "carob status -o json >/dev/null"'
try 'logind would wait for it' 'soon 20 locks | tee /dev/stderr | grep "shutdown.*delay"'
carob image import /load/images/busybox.tar >/dev/null 2>&1
for pod in usual system; do
  class= rest=:
  [ $pod = system ] && class='priorityClassName: system-node-critical' || rest='sleep 3'
  k apply -f - >/dev/null <<POD
apiVersion: v1
kind: Pod
metadata: {name: $pod}
spec:
  terminationGracePeriodSeconds: 60
  $class
  volumes: [{name: v, hostPath: {path: /var/log}}]
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    volumeMounts: [{name: v, mountPath: /v}]
    command: [sh, -c, "trap '$rest; echo $pod >>/v/ends; exit 0' TERM; while :; do sleep 1; done"]
POD
done
try 'both run' 'k wait --for=condition=Ready pod/usual pod/system --timeout=60s'
systemd-inhibit --what=shutdown --mode=delay --who=checks --why=look sleep 100 &
sleep 1
systemctl poweroff
try 'the node is not ready' 'soon 10 sh -c "carob kubectl get nodes -o jsonpath={.items[*].status.conditions[?\(@.type==\\\"Ready\\\"\)].message} | tee /dev/stderr | grep \"node is shutting down\""'
node=$(k get nodes -o 'jsonpath={.items[0].metadata.name}')
try 'a Pod that comes is refused' "k run late --image=busybox --restart=Never --overrides='{\"spec\":{\"nodeName\":\"$node\"}}' -- true && soon 10 sh -c 'carob kubectl get pod late -o jsonpath={.status.reason} | tee /dev/stderr | grep -x NodeShutdown'"
try 'carob lets the machine go' 'soon 40 sh -c "! systemd-inhibit --list --no-legend | grep -q carob"'
try 'those of the system ended last' '[ "$(tr "\n" " " </var/log/ends | tee /dev/stderr)" = "usual system " ]'
try 'the API knows how the usual one ended' told usual
try 'the API knows how that of the system ended' told system
echo DONE
