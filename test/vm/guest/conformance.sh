#!/bin/bash
# Has upstream's e2e suite judge the Carob on cgroup v2, where root has every capability. Writes what it says, one line PASS or FAIL, and DONE.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
modprobe dummy
dir=/var/lib/conformance
mkdir -p $dir
chmod 711 $dir
echo "  | $(uname -r), cgroup v2, $(crun --version | head -n 1)"
if /load/conformance/run -dir $dir -carob /load/carob -programs /load/conformance -source /load/source -list /load/conformance.txt \
  -specs nodeconformance -procs 2 -focus "$(cat /load/focus)" >$dir/out 2>&1; then
  echo "PASS conformance: $(grep " specs: " $dir/out)"
else
  echo "FAIL conformance: $(grep " specs: " $dir/out)"
  tail -n 200 $dir/parallel.log | cut -c 1-300 | sed 's/^/  | log: /'
fi
sed 's/^/  | /' $dir/out
echo DONE
