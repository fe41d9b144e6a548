# Runs in the machine, as PID 1: a host with cgroup v2 alone, then the tests. The last line is the verdict.
export PATH=/bin HOME=/root TMPDIR=/tmp RRUN_FULL_V2=1 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
echo 'root:x:0:' > /etc/group
ip link set lo up
# The tests must not be in the root cgroup's way.
mkdir /sys/fs/cgroup/init
echo 1 > /sys/fs/cgroup/init/cgroup.procs
filter=$(sed -n 's/.*vm\.filter=\([^ ]*\).*/\1/p' /proc/cmdline)
failed=0
run() {
    echo "vm-suite: $1"
    "$@" --test-threads=1 $filter || failed=$((failed + 1))
}
# Skipped: what is about hierarchies that this kernel does not have, and about controllers that it does have.
run test-cgroup --skip _hybrid --skip _v1 --skip controller_is_missing
run test-guest
insmod /overlay.ko
# Debian 12's kernel mounts overlays as those before 6.5 do.
run test-sys filesystem::
left=$(find /sys/fs/cgroup -mindepth 1 -type d ! -path /sys/fs/cgroup/init)
if [ -n "$left" ]; then
    echo "vm: cgroups were left behind: $left"
    failed=$((failed + 1))
fi
echo "vm-verdict: $failed"
poweroff -f
