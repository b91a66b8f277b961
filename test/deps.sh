#!/usr/bin/env bash
# Installs the Debian packages that tests and the demo need. Does nothing where all are there.
set -euo pipefail
packages=(crun runc nftables iproute2 procps psmisc util-linux curl jq dpkg)
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "carob: these packages are missing: ${missing[*]}. Install them as root: apt-get install ${missing[*]}" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends "${missing[@]}" ||
  { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }
