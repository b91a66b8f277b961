#!/bin/bash
# Writes the units of a machine with systemd, and becomes systemd. The Carob runs as a unit that leaves its Pods alone, the checks as another.
export PATH=/usr/sbin:/usr/bin
units=/etc/systemd/system
checks='/load/guest/checks.sh systemd'
[ -e /proc/cmdline ] || mount -t proc proc /proc
for mode in slices shutdown; do
  case " $(cat /proc/cmdline) " in *" guest.mode=$mode "*) checks=/load/guest/$mode.sh ;; esac
done
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nInhibitDelayMaxSec=100\n' >/etc/systemd/logind.conf.d/vm.conf
cp /load/carob.service $units/ # as docs has it, for all users
ln -sf /load/carob /usr/local/bin/carob
mkdir -p $units/carob.service.d
cat >$units/carob.service.d/vm.conf <<'UNIT'
[Unit]
After=vm-network.service
Requires=vm-network.service
[Service]
StandardOutput=append:/var/log/carob.log
StandardError=inherit
UNIT
cat >$units/vm-network.service <<'UNIT'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/load/guest/network.sh
UNIT
cat >$units/vm-checks.service <<UNIT
[Unit]
After=vm-network.service
Requires=vm-network.service
[Service]
Type=oneshot
ExecStart=$checks
ExecStopPost=systemctl poweroff --force --force
Environment=HOME=/root
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p $units/multi-user.target.wants
ln -sf ../vm-checks.service $units/multi-user.target.wants/
ln -sf /usr/lib/systemd/system/multi-user.target $units/default.target
for u in getty.target serial-getty@ttyS0.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer \
  rpcbind.socket rpcbind.service nfs-server.service nfs-client.target nfs-blkmap.service; do ln -sf /dev/null $units/$u; done
echo vm.example >/etc/hostname
exec /lib/systemd/systemd systemd.show_status=0
