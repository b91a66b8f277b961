#!/bin/bash
# The first process of a machine without systemd: mounts what every Linux mounts, cgroup v2 alone, runs the checks and turns the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,gid=5 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
hostname vm.example
/load/guest/network.sh
checks='/load/guest/checks.sh plain'
for mode in critest memory nfs conformance; do
  case " $(cat /proc/cmdline) " in *" guest.mode=$mode "*) checks=/load/guest/$mode.sh ;; esac
done
setsid $checks </dev/null &>/dev/ttyS0 &
wait $! # the shell also reaps what is left to it
sync
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
