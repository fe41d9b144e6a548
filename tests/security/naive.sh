#!/bin/bash
# A runtime as one might write it in an afternoon: every path is trusted, nothing is dropped, nothing is closed.
# naive.sh run BUNDLE | naive.sh restore BUNDLE IMAGE | naive.sh exec PID PROGRAM…
set -u
# A checkpoint knows best what was mounted.
if [ "$1" = restore ]; then
    jq --slurpfile saved "$3/mounts.json" ".mounts += \$saved[0]" "$2/config.json" >"$2/config.new" && mv "$2/config.new" "$2/config.json"
fi
if [ "$1" = exec ]; then
    # A user is a number, and what is none counts as one all the same.
    if [ -n "${NAIVE_USER+is}" ]; then
        number=$(printf '%d' "${NAIVE_USER%%:*}" 2>/dev/null)
        exec nsenter -t "$2" -m -p -r -S $((number & 0xffffffff)) "${@:3}"
    fi
    # A working directory is opened, then entered.
    [ -z "${NAIVE_CWD:-}" ] || exec nsenter -t "$2" -m -p -r --wd="$NAIVE_CWD" "${@:3}"
    if [ -n "${NAIVE_OOM:-}" ]; then exec nsenter -t "$2" -m -p -r sh -c 'echo "$0" >/proc/self/oom_score_adj; exec "$@"' "$NAIVE_OOM" "${@:3}"; fi
    # A copy, as the original is the test's own tool: this is "the runtime's executable" that a container may overwrite.
    exec "$NAIVE_BINARY" nsenter -t "$2" -m -p -r "${@:3}"
fi
cd "$2"
root=$PWD/$(jq -r .root.path config.json)
unshare --mount --pid --fork --propagation private bash -c '
    root=$1
    mount --bind "$root" "$root"
    jq -r ".mounts[] | [.destination, .type, .source] | @tsv" config.json | while IFS=$'"'\t'"' read -r to kind from; do
        mkdir -p "$root$to"
        case $kind in
            bind) mount --bind "$from" "$root$to" ;;
            cgroup) mount --rbind /sys/fs/cgroup "$root$to" ;;
            *) mount -t "$kind" "$from" "$root$to" ;;
        esac
    done
    [ -e "$root/dev/null" ] || mknod "$root/dev/null" c 1 3
    : >"$root/dev/console"
    [ "$(jq -r .process.terminal config.json)" != true ] || mount --bind "$root/dev/pts/0" "$root/dev/console"
    label=$(jq -r ".process.apparmorProfile // empty" config.json)
    [ -z "$label" ] || echo "exec $label" >"$root/proc/self/attr/exec"
    jq -r ".linux.readonlyPaths[]?" config.json | while read -r path; do
        mount --bind "$root$path" "$root$path"
        mount -o remount,bind,ro "$root/proc/self/fd/8" 8<"$root$path"
    done
    jq -r ".linux.maskedPaths[]?" config.json | while read -r path; do mount --bind "$root/dev/null" "$root$path"; done
    jq -r ".linux.sysctl // {} | to_entries[] | [.key, .value] | @tsv" config.json | while IFS=$'"'\t'"' read -r key value; do
        echo "$value" >"$root/proc/sys/${key//.//}"
    done
    cwd=$(jq -r .process.cwd config.json)
    case $cwd in /proc/*) ;; *) mkdir -p "$root$cwd" ;; esac
    exec 9</
    uid=$(jq -r .process.user.uid config.json)
    # Whose home is where stands in a file, which is read.
    [ ! -e "$root/etc/passwd" ] || HOME=$(grep ":$uid:" "$root/etc/passwd" | head -n 1 | cut -d: -f6)
    eval "set -- $(jq -r ".process.args | @sh" config.json)"
    exec setpriv --reuid $((uid & 0xffffffff)) --inh-caps=+kill,+chown chroot "$root" /bin/sh -c "cd $cwd && exec \"\$@\"" sh "$@"
' _ "$root" 2>&1
