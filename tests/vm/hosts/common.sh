# Sourced by the guests' scripts. A check is a shell function; its output is shown when it fails.
export PATH=/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
STATE=/run/rcontainerd
failed=0

check() {
    # Not in an `if`: there the shell ignores `set -e` inside, and a failed step would pass.
    output=$(set -ex; "$1" 2>&1)
    if [ $? = 0 ]; then echo "test $1 ... ok"
    else
        echo "$output" | tail -n 20 | sed 's/^/    /'
        echo "test $1 ... FAILED"
        failed=$((failed + 1))
    fi
}

# Fails with what was seen, unless $2 contains $1.
expect() { case "$2" in *"$1"*) ;; *) echo "expected: $1; seen: $2"; return 1 ;; esac; }

is() { [ "$1" = "$2" ] || { echo "expected: $1; seen: $2"; return 1; }; }

# Fails if the command succeeds (`!` would not end a check).
none() { if "$@"; then echo "unexpected: $*"; return 1; fi; }

# Tries the command that is given for up to two minutes (the machine is emulated).
eventually() {
    end=$(($(date +%s) + 120))
    until "$@" >/tmp/eventually 2>&1; do
        [ "$(date +%s)" -lt $end ] || { echo "not within two minutes: $*"; cat /tmp/eventually; return 1; }
        sleep 0.2
    done
}

# The verdict ends the machine's run.
verdict() {
    if [ $failed -gt 0 ]; then journalctl -u rcontainerd -n 30 --no-pager 2>&1 | sed 's/^/    /'; fi
    echo "vm-verdict: $failed"
}

# A neighbour that knows no way back to containers: who reaches it was masqueraded.
neighbour() {
    ip netns add neighbour
    ip link add wire type veth peer name eth0 netns neighbour
    ip addr add 10.99.0.1/24 dev wire
    ip link set wire up
    ip -n neighbour addr add 10.99.0.2/24 dev eth0
    ip -n neighbour link set eth0 up
}

files_of_a_container_that_never_ran_can_be_copied() {
    mkdir -p /srv/copied
    echo seen >/srv/copied/file
    echo in >/tmp/in
    rdocker create --name copied -v /srv/copied:/data:ro busybox true
    rdocker cp /tmp/in copied:/etc/in
    rdocker cp copied:/etc/in /tmp/out
    expect in "$(cat /tmp/out)"
    expect seen "$(rdocker cp copied:/data/file - | tar -xO)"
    rdocker rm copied
}

# The layers' paths together are longer than what fsconfig(2) takes, and shorter than what mount(2) does.
an_image_of_many_layers_runs() {
    image=busybox
    for n in 1 2 3 4 5 6 7 8; do
        rdocker create --name layer $image true
        rdocker cp /tmp/in layer:/layer$n
        rdocker commit layer layers
        rdocker rm layer
        image=layers
    done
    expect 8 "$(rdocker run --rm layers sh -c 'ls -d /layer* | wc -l')"
    rdocker rmi layers
}

# bundle DIR COMMAND JQ-FILTER [spec's options]: a bundle of busybox.
bundle() {
    dir=$1 command=$2 filter=$3
    shift 3
    rm -rf "$dir"
    mkdir -p "$dir"/rootfs/bin "$dir"/rootfs/proc "$dir"/rootfs/sys "$dir"/rootfs/dev
    cp /bin/busybox "$dir"/rootfs/bin/
    for applet in sh cat sleep mkdir mknod head id ls ip grep nc seq touch true mv; do ln -s busybox "$dir"/rootfs/bin/$applet; done
    rrun spec --bundle "$dir" "$@"
    jq --arg command "$command" ".process.terminal = false | .process.args = [\"sh\", \"-c\", \$command] | .root.readonly = false | $filter" \
        "$dir"/config.json >"$dir"/new
    mv "$dir"/new "$dir"/config.json
}
