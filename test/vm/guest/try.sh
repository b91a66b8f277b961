# What the scripts of checks share.
out=/tmp/out

# try NAME COMMAND…: passes if the command does.
try() {
  local name=$1 began=${EPOCHREALTIME/./}
  shift
  if timeout -k 5 120 bash -c 'set -o pipefail; '"$*" >$out 2>&1 </dev/null; then
    echo "PASS $name ($(((${EPOCHREALTIME/./} - began) / 1000)) ms)"
  else
    echo "FAIL $name: $(tail -n 1 $out | cut -c 1-300)"
    tail -n 25 $out | cut -c 1-400 | sed 's/^/  | /'
    return 1
  fi
}

# until COMMAND, for some seconds
soon() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.3
  done
}
