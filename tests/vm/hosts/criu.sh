# rrun checkpoint and restore by Debian's criu: on this kernel it works, on newer ones its vDSO parser does not.
. /payload/common.sh
export RRUN_CRIU=criu
# shellcheck disable=SC2016
COUNT='i=0; while :; do i=$((i+1)); echo $i >/data/new; mv /data/new /data/count; sleep 0.1; done'
DATA='.mounts += [{destination: "/data", type: "bind", source: "/tmp/data", options: ["bind", "nosuid"]}]'

# counter FILTER: a bundle that counts in /tmp/data/count.
counter() {
    # Of a check that failed.
    for id in one two term; do rrun delete --force $id; done
    rm -rf /tmp/data /tmp/image /tmp/work
    mkdir -p /tmp/data
    bundle /tmp/b "$COUNT" "$DATA | .linux.resources.memory.limit = 67108864 | .linux.resources.pids.limit = 40 | $1"
}

# Containers would keep the checks' pipe open.
rrun_quietly() { rrun "$@" </dev/null >/dev/null 2>/tmp/said || { cat /tmp/said; return 1; }; }
counted() { cat /tmp/data/count 2>/dev/null || echo 0; }
counts_beyond() { [ "$(counted)" -gt "$1" ]; }
pid_of() { rrun state "$1" | jq .pid; }
leaves_nothing() {
    none ls -d /run/rrun/"$1"
    none ls -d /sys/fs/cgroup/system.slice/"$1" /sys/fs/cgroup/"$1"
    none grep " /tmp/b" /proc/self/mountinfo
    none pgrep -x criu
}

# dumped ID: after a checkpoint; the file comes again only from who remembers the number.
dumped() {
    rrun checkpoint --image-path /tmp/image --work-path /tmp/work "$@"
    last=$(counted)
    rm /tmp/data/count
}

without_configuration_both_are_refused() {
    counter .
    rrun_quietly run -d --bundle /tmp/b one
    expect "criu is not configured: give its path by --criu" "$(env -u RRUN_CRIU rrun checkpoint one 2>&1 || true)"
    expect "criu is not configured" "$(env -u RRUN_CRIU rrun restore --bundle /tmp/b two 2>&1 || true)"
    expect "/no/criu: is no program" "$(rrun --criu /no/criu checkpoint one 2>&1 || true)"
    expect "criu: it ended" "$(rrun --criu /bin/true checkpoint one 2>&1 || true)"
    expect running "$(rrun state one)"
    rrun delete --force one
    is true "$(rrun features | jq -r '.annotations["org.opencontainers.runc.checkpoint.enabled"]')"
    is false "$(env -u RRUN_CRIU rrun features | jq -r '.annotations["org.opencontainers.runc.checkpoint.enabled"]')"
}

a_read_only_root_is_read_only_again() {
    counter '.root.readonly = true'
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    dumped one
    rrun_quietly restore -d --image-path /tmp/image --work-path /tmp/work --bundle /tmp/b one
    eventually counts_beyond "$last"
    expect "Read-only file system" "$(rrun exec one touch /file 2>&1 || true)"
    rrun delete --force one
    leaves_nothing one
}

a_counter_goes_on_where_it_was() {
    counter '.mounts += [{destination: "/link", type: "bind", source: "/tmp/data", options: ["bind", "ro"]},
        {destination: "/deep/below/it", type: "bind", source: "/etc/hostname", options: ["bind"]},
        {destination: "/scratch", type: "tmpfs", source: "tmpfs", options: ["size=1m"]}]'
    mkdir /tmp/b/rootfs/real
    ln -s real /tmp/b/rootfs/link
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 10
    rrun exec one sh -c 'echo kept >/scratch/file'
    for round in 1 2; do
        dumped one
        leaves_nothing one
        rrun_quietly restore -d --image-path /tmp/image --work-path /tmp/work --bundle /tmp/b --pid-file /tmp/pid one
        eventually counts_beyond "$last"
        expect running "$(rrun state one)"
        is "$(pid_of one)" "$(cat /tmp/pid)"
    done
    is kept "$(rrun exec one cat /scratch/file)"
    expect "$(cat /etc/hostname)" "$(rrun exec one cat /deep/below/it)"
    expect "LOOPBACK,UP" "$(rrun exec one ip link)"
}

what_was_restored_is_a_container_like_any_other() {
    is 67108864 "$(cat /sys/fs/cgroup/system.slice/one/memory.max 2>/dev/null || cat /sys/fs/cgroup/one/memory.max)"
    expect /one "$(cat /proc/"$(pid_of one)"/cgroup)"
    is 0::/ "$(rrun exec one cat /proc/self/cgroup)"
    expect "NoNewPrivs:	1" "$(rrun exec one cat /proc/1/status)"
    none rrun exec one sh -c 'echo x >/proc/sys/kernel/hostname'
    rrun pause one
    expect paused "$(rrun state one)"
    rrun resume one
    rrun update --pids-limit 33 one
    expect "$(pid_of one)" "$(rrun ps one)"
    eventually counts_beyond "$(counted)"
    rrun kill one KILL
    eventually sh -c 'rrun state one | grep stopped'
    rrun delete one
    leaves_nothing one
}

a_container_that_is_left_running_runs_and_can_be_restored_too() {
    counter .
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    rrun checkpoint --leave-running --image-path /tmp/image --work-path /tmp/work one
    expect running "$(rrun state one)"
    is 0 "$(cat /sys/fs/cgroup/system.slice/one/cgroup.freeze 2>/dev/null || cat /sys/fs/cgroup/one/cgroup.freeze)"
    eventually counts_beyond "$(counted)"
    rrun delete --force one
    rm /tmp/data/count
    rrun_quietly restore -d --image-path /tmp/image --bundle /tmp/b two
    eventually counts_beyond 5
    rrun delete --force two
    leaves_nothing two
}

memory_is_dumped_before_the_rest() {
    counter .
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    rrun checkpoint --pre-dump --image-path /tmp/image/first --work-path /tmp/work one
    expect running "$(rrun state one)"
    eventually counts_beyond "$(counted)"
    expect "--parent-path must be relative" "$(rrun checkpoint --parent-path /tmp/image/first --image-path /tmp/image/last one 2>&1 || true)"
    expect "invalid --parent-path" "$(rrun checkpoint --parent-path ../nowhere --image-path /tmp/image/last one 2>&1 || true)"
    rrun checkpoint --parent-path ../first --image-path /tmp/image/last --work-path /tmp/work one
    ls -L /tmp/image/last/parent/
    last=$(counted)
    rm /tmp/data/count
    rrun_quietly restore -d --image-path /tmp/image/last --work-path /tmp/work --bundle /tmp/b one
    eventually counts_beyond "$last"
    rrun delete --force one
}

a_terminal_is_given_anew() {
    counter '.process.terminal = true | .process.args[2] = "while read x; do echo got $x; done"'
    mkfifo /tmp/keys
    exec 8<>/tmp/keys
    script -qefc "rrun run --bundle /tmp/b term" /dev/null <&8 >/tmp/first 2>&1 &
    eventually rrun exec term true
    echo one >&8
    eventually grep "got one" /tmp/first
    rrun checkpoint --image-path /tmp/image --work-path /tmp/work term
    wait $! || true
    script -qefc "rrun restore --image-path /tmp/image --work-path /tmp/work --bundle /tmp/b term" /dev/null <&8 >/tmp/second 2>&1 &
    eventually rrun exec term true
    echo two >&8
    eventually grep "got two" /tmp/second
    rrun kill term KILL
    status=0
    wait $! || status=$?
    is 137 $status
    leaves_nothing term
}

pipes_and_the_exit_code_are_passed_on() {
    counter '.process.args[2] = "while [ ! -e /data/stop ]; do echo line; sleep 0.1; done; exit 7"'
    rrun run -d --bundle /tmp/b one </dev/null 2>&1 | cat >/tmp/heard1 &
    eventually grep line /tmp/heard1
    rrun checkpoint --image-path /tmp/image --work-path /tmp/work one
    expect pipe: "$(cat /tmp/image/descriptors.json)"
    { rrun restore --image-path /tmp/image --work-path /tmp/work --bundle /tmp/b one </dev/null 2>&1 || echo code $?; } | cat >/tmp/heard2 &
    eventually grep line /tmp/heard2
    touch /tmp/data/stop
    wait $!
    is "code 7" "$(tail -n 1 /tmp/heard2)"
    leaves_nothing one
}

a_checkpoint_that_fails_leaves_it_running() {
    counter '.process.args[2] = "nc -l -p 1234 -e sleep 10000 & until nc 127.0.0.1 1234 -e sleep 10000; do sleep 0.1; done & '"$COUNT"'"'
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    # An established connection, on port 0x4D2.
    eventually grep ":04D2 01" /proc/"$(pid_of one)"/net/tcp
    said=$(rrun checkpoint --image-path /tmp/image --work-path /tmp/work one 2>&1 || true)
    expect "criu: dump failed" "$said"
    expect "tcp-established" "$said"
    expect /tmp/work/dump.log "$said"
    is 1 "$(echo "$said" | wc -l)"
    expect running "$(rrun state one)"
    eventually counts_beyond "$(counted)"
    rrun delete --force one
}

# refused WORDS FILTER: restoring is, with this change of config.json, and nothing is left.
refused() {
    jq "$2" /tmp/b/before >/tmp/b/config.json
    rm -f /tmp/log
    none rrun --log /tmp/log restore -d --image-path /tmp/image --work-path /tmp/work --bundle /tmp/b one </dev/null >/dev/null 2>&1
    expect "$1" "$(cat /tmp/log)"
    leaves_nothing one
    none ls /tmp/data/count
}

an_image_that_is_not_what_config_json_asks_for_is_refused() {
    counter '.mounts += [{destination: "/scratch", type: "tmpfs", source: "tmpfs"}]'
    rrun run -d --bundle /tmp/b one </dev/null >/dev/null 2>&1
    eventually counts_beyond 5
    dumped one
    mv /tmp/b/config.json /tmp/b/before
    refused "the mount on /scratch" 'del(.mounts[] | select(.destination == "/scratch"))'
    refused "criu: restore failed" 'del(.mounts[] | select(.destination == "/data"))'
    refused "CAP_KILL" '.process.capabilities |= map_values(. - ["CAP_KILL"])'
    refused "its network namespace" '.linux.namespaces |= map(select(.type != "network"))'
    refused "/proc/timer_list" '.linux.maskedPaths -= ["/proc/timer_list"]'
    refused "/proc/uptime is not mounted" '.linux.maskedPaths += ["/proc/uptime"]'
    refused "seccomp" '.linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW"}'
    refused "RLIMIT_NOFILE" '.process.rlimits = [{type: "RLIMIT_NOFILE", soft: 10, hard: 10}]'
    refused "oom_score_adj" '.process.oomScoreAdj = 500'
    refused "not followed" '.annotations["org.criu.config"] = "/tmp/x"'
    refused "the mount on /data" '.mounts |= map(if .destination == "/data" then .options += ["ro"] else . end)'
    jq . /tmp/b/before >/tmp/b/config.json
    rrun restore -d --image-path /tmp/image --bundle /tmp/b one </dev/null >/dev/null 2>&1
    eventually counts_beyond "$last"
    rrun delete --force one
}

limits_and_root_are_those_of_the_restore() {
    counter .
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    dumped one
    # Another copy of the root, without any mount point.
    mkdir /tmp/copy
    cp -a /tmp/b/rootfs /tmp/copy/
    rmdir /tmp/copy/rootfs/data /tmp/copy/rootfs/proc
    jq '.linux.resources.memory.limit = 50331648 | .linux.cgroupsPath = "/elsewhere/one"' /tmp/b/config.json >/tmp/copy/config.json
    rrun_quietly restore -d --image-path /tmp/image --bundle /tmp/copy one
    eventually counts_beyond "$last"
    is 50331648 "$(cat /sys/fs/cgroup/elsewhere/one/memory.max)"
    is 0::/elsewhere/one "$(cat /proc/"$(pid_of one)"/cgroup)"
    rrun delete --force one
    none ls -d /sys/fs/cgroup/elsewhere/one
}

a_network_namespace_of_others_stays_theirs() {
    ip netns add other
    counter '.linux.namespaces |= map(if .type == "network" then .path = "/run/netns/other" else . end)'
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    dumped one
    rrun_quietly restore -d --image-path /tmp/image --bundle /tmp/b one
    eventually counts_beyond "$last"
    is "$(stat -Lc %i /run/netns/other)" "$(stat -Lc %i /proc/"$(pid_of one)"/ns/net)"
    rrun delete --force one
    ip netns del other
}

a_seccomp_filter_comes_back() {
    counter '.linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW", syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO"}]}'
    rrun_quietly run -d --bundle /tmp/b one
    eventually counts_beyond 5
    dumped one
    rrun_quietly restore -d --image-path /tmp/image --bundle /tmp/b one
    eventually counts_beyond "$last"
    grep "Seccomp:.2" /proc/"$(pid_of one)"/status
    rrun delete --force one
}

systemds_scope_comes_back() {
    counter '.linux.cgroupsPath = "system.slice:pre:one"'
    rrun_quietly --systemd-cgroup run -d --bundle /tmp/b one
    eventually counts_beyond 5
    dumped one
    status=0
    systemctl status pre-one.scope >/dev/null 2>&1 || status=$?
    is 4 $status
    rrun_quietly --systemd-cgroup restore -d --image-path /tmp/image --bundle /tmp/b one
    eventually counts_beyond "$last"
    is 67108864 "$(systemctl show -P MemoryMax pre-one.scope)"
    is 0::/system.slice/pre-one.scope "$(cat /proc/"$(pid_of one)"/cgroup)"
    rrun delete --force one
    status=0
    systemctl status pre-one.scope >/dev/null 2>&1 || status=$?
    is 4 $status
}

what_is_not_served_is_told() {
    expect "criu always uses pivot root" "$(rrun restore --no-pivot one 2>&1 || true)"
    expect "come from config.json" "$(rrun restore --manage-cgroups-mode soft one 2>&1 || true)"
    expect "not supported" "$(rrun restore --empty-ns pid one 2>&1 || true)"
    expect "is this a checkpoint" "$(mkdir -p /tmp/empty; rrun restore --image-path /tmp/empty --bundle /tmp/b one 2>&1 || true)"
    expect "does not exist" "$(rrun checkpoint one 2>&1 || true)"
}

for name in without_configuration_both_are_refused a_counter_goes_on_where_it_was what_was_restored_is_a_container_like_any_other \
    a_read_only_root_is_read_only_again a_container_that_is_left_running_runs_and_can_be_restored_too memory_is_dumped_before_the_rest a_terminal_is_given_anew \
    pipes_and_the_exit_code_are_passed_on a_checkpoint_that_fails_leaves_it_running \
    an_image_that_is_not_what_config_json_asks_for_is_refused limits_and_root_are_those_of_the_restore \
    a_network_namespace_of_others_stays_theirs a_seccomp_filter_comes_back systemds_scope_comes_back what_is_not_served_is_told; do
    check $name
done
verdict
poweroff -f
