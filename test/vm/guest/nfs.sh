#!/bin/bash
# What a Carob must do with NFS: this machine serves and mounts it. Lines as in checks.sh.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export KUBECONFIG=/var/lib/carob/admin.kubeconfig
ln -sf /load/carob /usr/local/bin/carob
. /load/guest/try.sh
k() { carob kubectl "$@"; }
of() { carob kubectl get pod "$1" -o "jsonpath=$2"; }
ready() { for p in "$@"; do k wait --for=condition=Ready "pod/$p" --timeout=90s || { k describe pod "$p"; return 1; }; done; }
# says POD TEXT: the Pod has an event with the text
says() { soon 60 sh -c "carob kubectl get events --field-selector involvedObject.name=$1 -o jsonpath='{range .items[*]}{.reason}: {.message}{\"\\n\"}{end}' | tee /dev/stderr | grep -F \"$2\""; }
mounts() { grep -c " /var/lib/carob/pods/$(of "$1" '{.metadata.uid}')/volumes/kubernetes.io~nfs/" /proc/mounts; }
# away: nothing comes from the server, and nothing gets there; back: it is there again
away() { nft 'add table inet away; add chain inet away in { type filter hook input priority -100; }; add rule inet away in tcp dport { 111, 2049 } drop; add rule inet away in tcp sport 2049 drop'; }
back() { nft delete table inet away; }
# pod NAME SCRIPT VOLUME…: a Pod whose one container has the volume at /v
pod() {
  printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{name: v, %s}]\n' "$1" "$3"
  printf '  containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "%s"], volumeMounts: [{name: v, mountPath: /v}]}]\n---\n' "$2"
}
sleeps="trap 'exit 0' TERM; sleep 100000 & wait"
export -f soon k of ready says mounts away back pod
export out sleeps

try 'a server of NFS' 'modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd && mkdir -p /srv/data /srv/other /srv/none /run/rpcbind && chmod 777 /srv/data /srv/other &&
  printf "/srv/data *(rw,no_root_squash,no_subtree_check,fsid=1)\n/srv/other *(rw,no_root_squash,no_subtree_check,fsid=2)\n/srv/none 192.0.2.1(rw,no_subtree_check,fsid=3)\n" >/etc/exports &&
  rpcbind && exportfs -ra && rpc.nfsd --grace-time 10 --lease-time 10 4 && rpc.mountd && echo Y >/proc/fs/nfsd/v4_end_grace; cat /proc/fs/nfsd/versions >&2; [ "$(cat /proc/fs/nfsd/threads)" = 4 ]'
try 'start' carob up -d --eviction-hard=none || {
  tail -n 20 /var/lib/carob/carob.log | cut -c 1-300 | sed 's/^/  | /'
  echo DONE
  exit
}
try 'import busybox' carob image import /load/images/busybox.tar
nfs() { echo "nfs: {server: 10.0.2.15, path: $1$2}"; }
{
  pod rw "echo from-the-pod >/v/a; $sleeps" "$(nfs /srv/data)"
  pod ro "$sleeps" "$(nfs /srv/data ', readOnly: true')"
  pod bad "$sleeps" "$(nfs /srv/data/later)"
  pod refused "$sleeps" "$(nfs /srv/none)"
  pod nobody "$sleeps" 'nfs: {server: 10.0.2.99, path: /x}'
  pod plain "$sleeps" 'emptyDir: {}'
  pod claimed "$sleeps" 'persistentVolumeClaim: {claimName: c}'
  pod third "$sleeps" 'persistentVolumeClaim: {claimName: three}'
  pod odd "$sleeps" 'persistentVolumeClaim: {claimName: odd}'
  for v in 'c nfsvers=4.1,noatime,timeo=100' 'three nfsvers=3,nolock,nosuid' 'odd nonsense=1'; do
    set -- $v
    printf 'apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: pv-%s}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteMany], storageClassName: "", mountOptions: [%s], nfs: {server: 10.0.2.15, path: /srv/other}, claimRef: {name: %s, namespace: default}}\n---\n' "$1" "$2" "$1"
    printf 'apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: %s}\nspec: {accessModes: [ReadWriteMany], storageClassName: "", volumeName: pv-%s, resources: {requests: {storage: 1Gi}}}\n---\n' "$1" "$1"
  done
} >/tmp/pods.yaml
try 'apply' 'k apply -f /tmp/pods.yaml'
try 'Pods with NFS volumes run' ready rw ro claimed third plain
try 'what a Pod writes is on the server' 'soon 10 grep from-the-pod /srv/data/a'
try 'another Pod reads it' 'k exec ro -- cat /v/a | tee /dev/stderr | grep from-the-pod'
try 'readOnly is read-only' '! k exec ro -- touch /v/b && k exec ro -- touch /v/b 2>&1 | grep "Read-only file system"; grep "kubernetes.io~nfs" /proc/mounts >&2; [ ! -e /srv/data/b ]'
try 'the newest version is spoken' 'k exec rw -- grep " /v " /proc/mounts | tee /dev/stderr | grep vers=4.2'
try 'mountOptions of a volume' 'k exec claimed -- grep " /v " /proc/mounts | tee /dev/stderr | grep noatime | grep vers=4.1 | grep timeo=100'
try 'version 3' 'k exec third -- grep " /v " /proc/mounts | tee /dev/stderr | grep nosuid | grep vers=3 && k exec third -- sh -c "echo 3 >/v/three" && grep 3 /srv/other/three && k exec claimed -- cat /v/three'
try 'an export that is not there' says bad 'FailedMount: MountVolume.SetUp failed for volume \"v\" : mount 10.0.2.15:/srv/data/later: the server has no such export: no such file or directory'
try 'an export for others' says refused 'mount 10.0.2.15:/srv/none: the server'
try 'a server that is not there' says nobody 'mount 10.0.2.99:/x: the server does not answer: dial tcp 10.0.2.99:2049'
try 'an option that is not understood names itself' says odd 'nonsense'
try 'it is mounted once the export is there' 'mkdir /srv/data/later && ready bad'
try 'statistics' 'k get --raw "/api/v1/nodes/$(k get nodes -o name | cut -d/ -f2)/proxy/stats/summary" >/tmp/summary && grep -A 12 "\"volume\"" /tmp/summary | head -n 40 >&2'

try 'kill -9 of carob, and another' 'old=$(carob status -o json | sed -n "s/^ *\"pid\": \([0-9]*\),*$/\1/p"); kill -9 $old && soon 10 sh -c "! kill -0 $old 2>/dev/null" && k >/dev/null; carob up -d --eviction-hard=none && ready rw ro claimed third bad'
try 'nothing was mounted twice' '[ "$(mounts rw) $(mounts claimed)" = "1 1" ] && k exec rw -- sh -c "echo again >/v/again" && grep again /srv/data/again'
try 'a Pod is deleted' 'm=$(mounts ro); k delete pod ro --timeout=20s && [ "$m" = 1 ] && ! pgrep -f "carob-shim.*ro$"; [ "$(grep -c "kubernetes.io~nfs/v nfs4 ro" /proc/mounts)" = 0 ]'

# The server is away.
pid_of_carob() { carob status -o json | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p'; }
export -f pid_of_carob
k get pod rw -o 'jsonpath={.metadata.uid}' >/tmp/rw
away
try 'without the server: its Pods do not hold up another' 'k delete pod plain --timeout=20s && '"pod plain \"$sleeps\" 'emptyDir: {}' | k apply -f - && ready plain"
try 'without the server: statistics' 'k get --raw "/api/v1/nodes/$(k get nodes -o name | cut -d/ -f2)/proxy/stats/summary" --request-timeout=20s >/dev/null'
try 'without the server: a Pod of it is deleted' 'k delete pod rw --timeout=60s; c=$?; k get events --field-selector involvedObject.name=rw | tail -n 5 >&2; [ $c = 0 ] && ! grep "$(cat /tmp/rw)" /proc/mounts'
try 'without the server: a Pod that needs it says so' 'pod wants "$sleeps" "nfs: {server: 10.0.2.15, path: /srv/data}" | k apply -f - && says wants "the server does not answer"'
try 'without the server: that Pod can be deleted' 'k delete pod wants --timeout=20s'
try 'without the server: kill -9 of carob, and another' 'old=$(pid_of_carob); kill -9 $old && soon 20 sh -c "! kill -0 $old 2>/dev/null" && carob up -d --eviction-hard=none && ready plain'
try 'without the server: others come and go' 'k delete pod plain --timeout=20s && '"pod plain \"$sleeps\" 'emptyDir: {}' | k apply -f - && ready plain"
back
try 'the server is back: its Pods go on' 'soon 60 timeout 20 carob kubectl exec claimed -- sh -c "echo on >/v/on" && grep on /srv/other/on && [ "$(of claimed "{.status.containerStatuses[0].restartCount}")" = 0 ]'
away
# One that has written what the server does not know, and one that waits for it, are the hardest to end.
k exec claimed -- sh -c 'dd if=/dev/zero of=/v/dirty bs=64k count=16 >/dev/null 2>&1 &' >/dev/null 2>&1 &
k exec third -- sh -c 'ls -l /v/more' >/dev/null 2>&1 &
sleep 3
try 'without the server: a Pod that writes to it is deleted' 'k delete pod claimed --timeout=100s; c=$?; k get events --field-selector involvedObject.name=claimed | tail -n 4 >&2; ps -eo pid,stat,wchan:30,args | grep " D" >&2; [ $c = 0 ]'
try 'without the server: others come and go still' 'k delete pod plain --timeout=20s'
back
try 'the server is back: all can be deleted' 'k delete pods --all --timeout=100s && ! grep "kubernetes.io~nfs" /proc/mounts'
pod last "$sleeps" "$(nfs /srv/data)" >/tmp/last.yaml
try 'a last Pod' 'k apply -f /tmp/last.yaml && ready last'
away
try 'without the server: down' 'timeout 100 carob down'
try 'without the server: uninstall' 'timeout 100 carob uninstall'
try 'nothing left' '! grep -E "carob|nfs4" /proc/mounts && [ -z "$(ls -d /var/lib/carob /run/carob 2>/dev/null | tee /dev/stderr)" ] && ! pgrep -a "carob|pause"'
echo DONE
