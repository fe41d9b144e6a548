#!/bin/bash
# A criu that restores from a checkpoint with a mount too many: it speaks as much of criu's protocol as rrun asks for, and has another
# rrun make the container that the image describes, up to its start. RRUN: that program; BUNDLE: what is restored; IMAGE: whence.
set -e
# One message is one write: bash itself would end one at each newline.
byte() { message+=$(printf '\\%03o' "$1"); }
varint() {
    local rest=$1
    while [ "$rest" -ge 128 ]; do byte $((rest & 127 | 128)); rest=$((rest >> 7)); done
    byte "$rest"
}
text() { byte ${#1}; message+=$1; }
# shellcheck disable=SC2059
send() { printf "$message" | dd bs=65536 iflag=fullblock >&3 2>/dev/null; }
# The last byte that was received.
receive() { dd bs=65536 count=1 <&3 2>/dev/null | od -An -v -tu1 | tr -s ' \n' ' ' | sed 's/ $//; s/.* //'; }
# criu_resp: type NOTIFY, success, criu_notify {script, pid}
tell() {
    local inner
    message=
    varint "$pid"
    inner=$message
    message='\010\006\020\001\052'
    byte $((2 + ${#1} + 1 + ${#inner} / 4))
    message+='\012'
    text "$1"
    message+='\020'$inner
    send
    [ "$(receive)" = 1 ]
}
request=$(dd bs=65536 count=1 <&3 2>/dev/null | od -An -v -tu1 -N2 | tr -d ' ')
if [ "$request" = 810 ]; then
    message='\010\012\020\001\122\004\010\003\020\021'
    send
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
jq --slurpfile saved "$IMAGE/mounts.json" --arg root "$BUNDLE/rootfs" '.mounts += $saved[0] | .root.path = $root | del(.linux.cgroupsPath, .linux.resources)' \
    "$BUNDLE/config.json" >"$work/config.json"
other="$RRUN --root $work/state --cgroup-manager disabled"
$other create --bundle "$work" --pid-file "$work/pid" restored </dev/null
pid=$(cat "$work/pid")
if tell setup-namespaces && tell post-restore && tell pre-resume; then
    $other start restored
    message='\010\002\020\001\042'
    # success, criu_restore_resp {pid}
    inner=$message message=
    varint "$pid"
    pid_bytes=$message message=$inner
    byte $((1 + ${#pid_bytes} / 4))
    message+='\010'$pid_bytes
else
    $other delete --force restored
    message='\010\002\020\000'
fi
send
