# Debian 12 with systemd: socket activation, restarts, a reboot, dockerd beside, our engine inside dockerd's container.
. /payload/common.sh

check_finds_nothing_missing() {
    said=$(rcontainerd check)
    expect "v2 with" "$said"
    echo "$said" | none grep MISSING
}

units_activate_by_socket() {
    rcontainerd install-units
    systemctl daemon-reload
    systemctl enable --now rcontainerd.socket
    none systemctl is-active rcontainerd.service
    expect 0.1.0 "$(rdocker version)"
    systemctl is-active rcontainerd.service
    expect "660 root" "$(stat -c '%a %U' $STATE/docker.sock)"
    expect 711 "$(stat -c %a $STATE)"
    expect 711 "$(stat -c %a /var/lib/rcontainerd)"
    systemctl enable rcontainerd.service
}

a_container_runs() {
    rdocker load -i /payload/busybox.tar
    expect hello "$(rdocker run --rm busybox echo hello)"
    expect "Hello" "$(rdocker run --rm rcontainerd/hello)"
}

limits_hold_under_systemd() {
    expect 67108864 "$(rdocker run --rm -m 64m --cpus 0.5 --pids-limit 20 busybox cat /sys/fs/cgroup/memory.max)"
    expect "50000 100000" "$(rdocker run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max)"
}

journald_and_syslog_take_the_output() {
    rdocker run --name tells --network none --log-driver journald --log-opt tag=ours --log-opt labels=color -l color=red busybox sh -c 'echo to the journal; echo badly >&2'
    eventually sh -c "journalctl CONTAINER_NAME=tells -o cat | grep -x 'to the journal'"
    expect badly "$(journalctl -p err CONTAINER_TAG=ours COLOR=red -o cat)"
    expect "to the journal" "$(rdocker logs tells 2>/dev/null)"
    rdocker rm tells
    # A journald that is restarted loses nothing of a container that goes on.
    rdocker run -d --name talks --network none --log-driver journald busybox sh -c 'while ! [ -e /go ]; do sleep 1; done; echo after it'
    systemctl restart systemd-journald
    rdocker exec talks touch /go
    eventually sh -c "journalctl CONTAINER_NAME=talks -o cat | grep -x 'after it'"
    rdocker rm -f talks
    # journald listens at /dev/log, too.
    rdocker run --rm --network none --log-driver syslog --log-opt tag=by-syslog busybox echo by the old way
    eventually sh -c "journalctl -t by-syslog -o cat | grep -x 'by the old way'"
}

containers_outlive_a_restart_of_the_unit() {
    rdocker run -d --name lives busybox sh -c 'while :; do date; sleep 1; done'
    rdocker run -d --name again --restart always busybox sleep 100000
    rdocker run -d --name manual --restart unless-stopped busybox sleep 100000
    # The emulated machine may take longer than a client waits.
    rdocker stop -t 0 manual || true
    eventually sh -c "rdocker inspect -f '{{.State.Status}}' manual | grep exited"
    pid=$(rdocker inspect -f '{{.State.Pid}}' lives)
    before=$(systemctl show -p MainPID --value rcontainerd)
    systemctl restart rcontainerd
    [ "$before" != "$(systemctl show -p MainPID --value rcontainerd)" ]
    expect "$pid" "$(rdocker inspect -f '{{.State.Pid}}' lives)"
    [ -d /proc/"$pid" ]
    expect still "$(rdocker exec lives echo still)"
    # Without --kill-whom it would mean the whole unit, shims and all.
    systemctl kill --kill-whom=main -s KILL rcontainerd
    eventually rdocker exec lives true
    expect "$pid" "$(rdocker inspect -f '{{.State.Pid}}' lives)"
}

a_reload_reads_the_configuration() {
    mkdir -p /etc/rcontainerd
    echo 'log_level = "debug"' >/etc/rcontainerd/config.toml
    systemctl reload rcontainerd
    eventually sh -c 'journalctl -u rcontainerd | grep "configuration read again.*debug"'
    echo 'log_levle = "debug"' >/etc/rcontainerd/config.toml
    systemctl reload rcontainerd
    eventually sh -c 'journalctl -u rcontainerd | grep "configuration not taken over.*line 1.*log_levle"'
    rm -r /etc/rcontainerd
}

a_stop_is_quick() {
    start=$(date +%s)
    systemctl stop rcontainerd.service
    [ $(($(date +%s) - start)) -lt 10 ]
    eventually rdocker exec lives true
}

egress_is_masqueraded() {
    neighbour
    rdocker run --rm busybox ping -c 1 -w 20 10.99.0.2
}

dockerd_beside_is_survived_or_told() {
    # dockerd lets FORWARD drop only where it turns forwarding on itself.
    echo 0 >/proc/sys/net/ipv4/ip_forward
    systemctl start docker
    eventually docker version
    expect DROP "$(iptables -S FORWARD)"
    if ! rdocker run --rm busybox ping -c 1 -w 5 10.99.0.2; then
        told=$(rcontainerd check | grep 'other firewalls')
        expect "costs: " "$told"
        # The remedy, to the letter.
        eval "${told##*remedy: }"
        rdocker run --rm busybox ping -c 1 -w 20 10.99.0.2
    fi
    rcontainerd check | grep "ok .*other firewalls"
}

a_dockerd_container_is_a_host_too() {
    mkdir -p /tmp/box
    (cd /tmp/box && mkdir -p usr etc proc sys dev tmp run var/lib var/tmp payload root && ln -s usr/bin bin && ln -s usr/sbin sbin && ln -s usr/lib lib && ln -s usr/lib64 lib64)
    echo 'root:x:0:0:root:/root:/bin/sh' >/tmp/box/etc/passwd
    tar -C /tmp/box -c . | docker import - box
    docker run --rm --privileged --network none -v /usr:/usr:ro -v /etc/alternatives:/etc/alternatives:ro -v /payload:/payload:ro box sh /payload/inside.sh
}

the_reboot_waited_for_no_container() {
    # `lives` ignores SIGTERM: it has its ten seconds, and the host no more than it takes anyway. systemd would wait for 90.
    down=$(($(date -d "$(uptime -s)" +%s) - $(cat /var/rebooted-at)))
    echo "down after $down s"
    [ $down -lt 60 ]
}

after_the_reboot_the_store_is_fine() {
    expect busybox "$(rdocker images)"
    expect anew "$(rdocker run --rm busybox echo anew)"
    [ "$(rdocker logs lives | wc -l)" -gt 0 ]
}

after_the_reboot_restart_policies_were_applied() {
    expect "exited 137" "$(rdocker inspect -f '{{.State.Status}} {{.State.ExitCode}}' lives)"
    eventually sh -c "rdocker inspect -f '{{.State.Status}}' again | grep running"
    expect exited "$(rdocker inspect -f '{{.State.Status}}' manual)"
    rdocker start lives
    expect running "$(rdocker inspect -f '{{.State.Status}}' lives)"
}

uninstall_leaves_nothing() {
    rcontainerd uninstall --force
    for path in $STATE /var/lib/rcontainerd /etc/systemd/system/rcontainerd.service /etc/systemd/system/rcontainerd.socket /sys/fs/cgroup/rcontainerd; do
        none ls -d $path 2>/dev/null
    done
    none pgrep -f containerd-shim-rrun
    none grep rcontainerd /proc/self/mountinfo
    nft list tables | none grep rcontainerd
    none ip link show rcontainerd0
}

if [ ! -e /var/rebooted ]; then
    for name in check_finds_nothing_missing units_activate_by_socket a_container_runs files_of_a_container_that_never_ran_can_be_copied an_image_of_many_layers_runs limits_hold_under_systemd \
        journald_and_syslog_take_the_output containers_outlive_a_restart_of_the_unit a_reload_reads_the_configuration a_stop_is_quick egress_is_masqueraded \
        dockerd_beside_is_survived_or_told a_dockerd_container_is_a_host_too; do
        check $name
    done
    echo $failed >/var/rebooted
    date +%s >/var/rebooted-at
    sync
    systemctl --no-block reboot
else
    failed=$(cat /var/rebooted)
    for name in the_reboot_waited_for_no_container after_the_reboot_the_store_is_fine after_the_reboot_restart_policies_were_applied uninstall_leaves_nothing; do
        check $name
    done
    verdict
fi
