#!/bin/bash
# Has the CRI's validation suite judge the runtime on cgroup v2 and AppArmor. Writes what it says, one line PASS or FAIL, and DONE.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
mount -t securityfs securityfs /sys/kernel/security
printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo # the suite calls apparmor_parser through it
chmod +x /usr/local/bin/sudo
mkdir -p /var/lib/critest
cd /var/lib/critest || exit
echo "  | $(uname -r), AppArmor: $(cat /sys/module/apparmor/parameters/enabled), $(crun --version | head -n 1)"
if /load/critest-run -dir /var/lib/critest -carob /load/carob -critest /load/critest -images /load/images -shell /load/critest-tools/busybox \
  -nnp /load/critest-tools/nnp -list /load/critest.txt >out 2>&1; then
  echo "PASS $(tail -n 1 out)"
else
  echo "FAIL critest: $(tail -n 1 out)"
  tail -n 30 runtime.log | cut -c 1-300 | sed 's/^/  | log: /'
fi
sed 's/^/  | /' out
echo DONE
