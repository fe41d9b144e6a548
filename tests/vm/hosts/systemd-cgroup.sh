# rrun's systemd driver: Debian 12 with systemd and D-Bus, cgroup v2, as root and as an ordinary user with a systemd of its own.
. /payload/common.sh
unit=pre-one.scope
cgroup=/sys/fs/cgroup/rrun.slice/rrun-test.slice/$unit
users_cgroup=/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/rrun-mine.scope

shown() { systemctl show -P "$2" "$1"; }
gone() { status=0; systemctl status "$1" >/dev/null 2>&1 || status=$?; is 4 $status; }
made() { rrun --systemd-cgroup create --bundle /tmp/b "$1" >/dev/null 2>&1 </dev/null; }

a_scope_lies_in_its_slice_with_its_limits() {
    bundle /tmp/b 'sleep 10000' '.linux.cgroupsPath = "rrun-test.slice:pre:one" | .linux.resources += {
        memory: {limit: 67108864, swap: 134217728, reservation: 33554432}, pids: {limit: 40},
        cpu: {shares: 512, quota: 30500, period: 100000, cpus: "0", mems: "0"}}'
    made one
    rrun start one
    is rrun-test.slice "$(shown $unit Slice)"
    is yes "$(shown $unit Delegate)"
    is 67108864 "$(shown $unit MemoryMax)"
    is 33554432 "$(shown $unit MemoryLow)"
    is 67108864 "$(shown $unit MemorySwapMax)"
    is 40 "$(shown $unit TasksMax)"
    is 59 "$(shown $unit CPUWeight)"
    is 310ms "$(shown $unit CPUQuotaPerSecUSec)"
    is 0 "$(shown $unit AllowedCPUs)"
    is strict "$(shown $unit DevicePolicy)"
    is 67108864 "$(cat $cgroup/memory.max)"
    is "31000 100000" "$(cat $cgroup/cpu.max)"
    is 40 "$(cat $cgroup/pids.max)"
    is 0 "$(cat $cgroup/cpuset.cpus)"
    is 0::/rrun.slice/rrun-test.slice/$unit "$(cat /proc/"$(rrun state one | jq .pid)"/cgroup)"
}

a_reload_of_systemd_changes_nothing() {
    systemctl daemon-reload
    is 67108864 "$(cat $cgroup/memory.max)"
    is "31000 100000" "$(cat $cgroup/cpu.max)"
    is 40 "$(cat $cgroup/pids.max)"
    rrun exec one sh -c 'head -c 1 /dev/zero >/dev/null'
}

an_exec_is_in_the_scope_and_a_pause_stops_it() {
    is 0::/ "$(rrun exec one cat /proc/self/cgroup)"
    rrun pause one
    expect paused "$(rrun state one)"
    rrun resume one
    expect running "$(rrun state one)"
}

an_update_goes_through_systemd_and_into_the_files() {
    rrun update --pids-limit 50 --memory 33554432 --memory-swap 33554432 one
    is 50 "$(shown $unit TasksMax)"
    is 50 "$(cat $cgroup/pids.max)"
    is 33554432 "$(shown $unit MemoryMax)"
    is 0 "$(cat $cgroup/memory.swap.max)"
    rrun update --cpu-period 50000 one
    is "31000 50000" "$(cat $cgroup/cpu.max)"
    is 620ms "$(shown $unit CPUQuotaPerSecUSec)"
    rrun update --cpu-quota -1 one
    is "max 50000" "$(cat $cgroup/cpu.max)"
    is infinity "$(shown $unit CPUQuotaPerSecUSec)"
    systemctl daemon-reload
    is 50 "$(cat $cgroup/pids.max)"
    # Without a quota systemd has no period either.
    expect max "$(cat $cgroup/cpu.max)"
}

the_same_place_is_not_given_twice() {
    if said=$(rrun --systemd-cgroup run --bundle /tmp/b two 2>&1); then return 1; fi
    expect UnitExists "$said"
    expect running "$(rrun state one)"
    none rrun state two
}

a_deleted_container_leaves_no_unit() {
    rrun delete --force one
    gone $unit
    none ls -d $cgroup 2>/dev/null
}

a_container_that_fails_to_start_leaves_no_unit() {
    bundle /tmp/b 'x' '.linux.cgroupsPath = "system.slice:pre:bad" | .process.args = ["/no/such/program"]'
    none rrun --systemd-cgroup run --bundle /tmp/b bad
    gone pre-bad.scope
    none ls -d /sys/fs/cgroup/system.slice/pre-bad.scope 2>/dev/null
}

a_unit_that_failed_is_forgotten() {
    bundle /tmp/b 'sleep 10000' '.linux.cgroupsPath = "system.slice:pre:late" |
        .annotations = {"org.systemd.property.RuntimeMaxSec": "1", "org.systemd.property.TimeoutStopSec": "1"}'
    # Not started: the machine may be slower than its time.
    made late
    eventually systemctl is-failed pre-late.scope
    eventually sh -c 'rrun state late | grep stopped'
    rrun delete late
    gone pre-late.scope
    made late
    rrun delete --force late
    gone pre-late.scope
}

names_have_defaults() {
    bundle /tmp/b 'cat /proc/self/cgroup' 'del(.linux.cgroupsPath) | .linux.namespaces -= [{type: "cgroup"}]'
    is '0::/system.slice/rrun-a\x2bb.scope' "$(rrun --cgroup-manager systemd run --bundle /tmp/b a+b)"
    bundle /tmp/b 'cat /proc/self/cgroup' '.linux.cgroupsPath = ":pre:name" | .linux.namespaces -= [{type: "cgroup"}]'
    is 0::/system.slice/pre-name.scope "$(rrun --systemd-cgroup run --bundle /tmp/b x)"
}

what_is_wrong_is_told_before_anything_is_made() {
    bundle /tmp/b 'true' '.linux.cgroupsPath = "/a/path"'
    expect 'slice:prefix:name' "$(rrun --systemd-cgroup run --bundle /tmp/b x 2>&1 || true)"
    bundle /tmp/b 'true' '.annotations = {"org.systemd.property.Slice": "'"'x.slice'"'"}'
    expect 'may not be set' "$(rrun --systemd-cgroup run --bundle /tmp/b x 2>&1 || true)"
    bundle /tmp/b 'true' '.'
    expect /nowhere "$(DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere rrun --systemd-cgroup run --bundle /tmp/b x 2>&1 || true)"
    none rrun state x
}

devices_are_denied() {
    bundle /tmp/b 'mknod /d b 254 0 && head -c 1 /d; head -c 1 /dev/zero >/dev/null && echo fine' '.linux.resources.devices = [{allow: false, access: "rwm"}] |
        .process.capabilities |= map_values(. + ["CAP_MKNOD"])'
    said=$(rrun --systemd-cgroup run --bundle /tmp/b x 2>&1)
    expect "not permitted" "$said"
    expect fine "$said"
}

a_container_with_ids_of_its_own_owns_its_cgroup() {
    bundle /tmp/b 'mkdir /sys/fs/cgroup/sub && echo made' '.linux.namespaces += [{type: "user"}] |
        .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 1000}] | .linux.gidMappings = .linux.uidMappings |
        .mounts |= map(if .type == "cgroup" then .options -= ["ro"] else . end)'
    chown -R 100000 /tmp/b/rootfs
    is made "$(rrun --systemd-cgroup run --bundle /tmp/b x)"
}

without_a_bus_systemd_is_spoken_to_itself() {
    bundle /tmp/b 'true' '.linux.cgroupsPath = "system.slice:pre:direct"'
    mv /run/dbus/system_bus_socket /run/dbus/away
    trap 'mv /run/dbus/away /run/dbus/system_bus_socket' EXIT
    rrun --systemd-cgroup run --bundle /tmp/b direct
    none ls -d /sys/fs/cgroup/system.slice/pre-direct.scope 2>/dev/null
}

user() { runuser -u someone -- env HOME=/home/someone XDG_RUNTIME_DIR=/run/user/1000 PATH="$PATH" "$@"; }

a_user_has_a_systemd() {
    useradd --uid 1000 --create-home someone
    loginctl enable-linger someone
    eventually ls /run/user/1000/bus
    eventually user systemctl --user is-active basic.target
}

a_users_scope_has_its_limits() {
    bundle /home/someone/b 'sleep 10000' '.linux.resources = {memory: {limit: 67108864}, pids: {limit: 30}}' --rootless
    jq '.linux.uidMappings[0].hostID = 1000 | .linux.gidMappings[0].hostID = 1000' /home/someone/b/config.json >/home/someone/c
    mv /home/someone/c /home/someone/b/config.json
    chown -R someone:someone /home/someone/b
    user rrun --systemd-cgroup create --bundle /home/someone/b mine >/dev/null 2>&1 </dev/null
    user rrun start mine
    is 67108864 "$(cat $users_cgroup/memory.max)"
    is 30 "$(cat $users_cgroup/pids.max)"
    is 30 "$(user systemctl --user show -P TasksMax rrun-mine.scope)"
    ls -d /run/user/1000/rrun/mine
}

a_users_exec_is_moved_by_systemd() {
    # From a cgroup that is not the user's.
    user rrun exec mine sh -c 'sleep 5 & cat /proc/self/cgroup; id -u' >/tmp/said
    is "0::/ 0" "$(tr '\n' ' ' </tmp/said | sed 's/ $//')"
    is 2 "$(grep -c . $users_cgroup/cgroup.procs)"
}

a_users_update_and_pause_work() {
    user rrun update --pids-limit 33 mine
    is 33 "$(cat $users_cgroup/pids.max)"
    is 33 "$(user systemctl --user show -P TasksMax rrun-mine.scope)"
    user rrun pause mine
    expect paused "$(user rrun state mine)"
    user rrun resume mine
    user rrun ps mine
    user rrun delete --force mine
    none ls -d $users_cgroup 2>/dev/null
    status=0
    user systemctl --user status rrun-mine.scope >/dev/null 2>&1 || status=$?
    is 4 $status
}

a_user_with_a_delegated_cgroup_needs_no_systemd_driver() {
    jq '.process.args = ["cat", "/sys/fs/cgroup/pids.max"]' /home/someone/b/config.json >/home/someone/c
    mv /home/someone/c /home/someone/b/config.json
    is 30 "$(user systemd-run --user --scope --quiet -p Delegate=yes rrun run --bundle /home/someone/b own)"
    if said=$(user rrun run --bundle /home/someone/b own 2>&1); then return 1; fi
    expect "rootless needs no limits" "$said"
    jq 'del(.linux.resources) | .process.args = ["id", "-u"]' /home/someone/b/config.json >/home/someone/c
    mv /home/someone/c /home/someone/b/config.json
    is 0 "$(user rrun run --bundle /home/someone/b own)"
}

for name in a_scope_lies_in_its_slice_with_its_limits a_reload_of_systemd_changes_nothing an_exec_is_in_the_scope_and_a_pause_stops_it \
    an_update_goes_through_systemd_and_into_the_files the_same_place_is_not_given_twice a_deleted_container_leaves_no_unit \
    a_container_that_fails_to_start_leaves_no_unit a_unit_that_failed_is_forgotten names_have_defaults \
    what_is_wrong_is_told_before_anything_is_made devices_are_denied a_container_with_ids_of_its_own_owns_its_cgroup \
    without_a_bus_systemd_is_spoken_to_itself a_user_has_a_systemd a_users_scope_has_its_limits a_users_exec_is_moved_by_systemd \
    a_users_update_and_pause_work a_user_with_a_delegated_cgroup_needs_no_systemd_driver; do
    check $name
done
verdict
poweroff -f
