# Debian 12 on the 5.10 kernel of Debian 11: no mount_setattr (5.12), no cgroup.kill (5.14), no user xattrs of overlayfs (5.11).
. /payload/common.sh

check_finds_nothing_missing() {
    said=$(rcontainerd check)
    expect "5.10" "$said"
    echo "$said" | none grep MISSING
}

the_manager_starts() {
    rcontainerd --pid-file /run/rcontainerd.pid >/var/log/rcontainerd 2>&1 &
    eventually rdocker version
    rdocker load -i /payload/busybox.tar
}

without_netfilter_the_other_networks_are_named() {
    echo 'install nf_tables /bin/false' >/etc/modprobe.d/no-netfilter.conf
    trap 'rm /etc/modprobe.d/no-netfilter.conf' EXIT
    if lsmod | grep nf_tables; then modprobe -r nf_tables; fi
    if said=$(rdocker run --rm busybox true 2>&1); then return 1; fi
    expect "--network none|host" "$said"
    expect quiet "$(rdocker run --rm --network none busybox echo quiet)"
    expect loud "$(rdocker run --rm --network host busybox echo loud)"
    rcontainerd check | grep "less .*nftables.*costs: no default bridge"
}

a_container_runs() {
    expect hello "$(rdocker run --rm busybox echo hello)"
    expect "Hello" "$(rdocker run --rm rcontainerd/hello)"
    expect overlay "$(rdocker info -f '{{.Driver}}')"
}

mounts_work() {
    mkdir -p /srv/data
    echo seen >/srv/data/file
    expect seen "$(rdocker run --rm -v /srv/data:/data:ro busybox cat /data/file)"
    expect "Read-only" "$(rdocker run --rm -v /srv/data:/data:ro busybox touch /data/new 2>&1 || true)"
    expect "Read-only" "$(rdocker run --rm --read-only busybox touch /new 2>&1 || true)"
    expect tmpfs "$(rdocker run --rm --tmpfs /t busybox mount)"
    expect kept "$(rdocker run --rm -v vol:/v busybox sh -c 'echo kept >/v/a'; rdocker run --rm -v vol:/v busybox cat /v/a)"
}

limits_and_privileges_work() {
    expect 67108864 "$(rdocker run --rm -m 64m busybox cat /sys/fs/cgroup/memory.max)"
    expect "Seccomp:	2" "$(rdocker run --rm busybox cat /proc/self/status)"
    rdocker run --rm --privileged busybox mount -t tmpfs none /tmp
    none rdocker run --rm busybox mount -t tmpfs none /tmp
}

a_life_runs_its_course() {
    rdocker run -d --name life --init busybox sleep 100000
    expect inside "$(rdocker exec life echo inside)"
    rdocker pause life
    rdocker unpause life
    rdocker restart -t 1 life
    rdocker kill life
    expect "137" "$(rdocker wait life)"
    rdocker rm life
}

ports_and_egress_work() {
    neighbour
    rdocker run --rm busybox ping -c 1 -w 20 10.99.0.2
    rdocker run -d --name web -p 8080:80 busybox sh -c 'while :; do echo served | nc -l -p 80; done'
    eventually ip netns exec neighbour bash -c 'read -r line <>/dev/tcp/10.99.0.1/8080; [ "$line" = served ]'
    rdocker rm -f web
}

no_registry_is_told_in_a_line() {
    if said=$(rdocker pull registry.invalid/some:tag 2>&1); then return 1; fi
    expect "registry.invalid" "$said"
}

nothing_is_left() {
    [ -z "$(rdocker ps -aq)" ]
    none grep "$STATE/tasks" /proc/self/mountinfo
    none ls /sys/fs/cgroup/rcontainerd/*/cgroup.procs 2>/dev/null
    kill "$(cat /run/rcontainerd.pid)"
    eventually rcontainerd uninstall
    none ls -d $STATE /var/lib/rcontainerd 2>/dev/null
}

for name in check_finds_nothing_missing the_manager_starts without_netfilter_the_other_networks_are_named a_container_runs mounts_work \
    files_of_a_container_that_never_ran_can_be_copied an_image_of_many_layers_runs limits_and_privileges_work a_life_runs_its_course ports_and_egress_work no_registry_is_told_in_a_line nothing_is_left; do
    check $name
done
if [ $failed -gt 0 ]; then tail -n 30 /var/log/rcontainerd | sed 's/^/    /'; fi
verdict
poweroff -f
