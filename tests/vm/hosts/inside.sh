# In a privileged container of dockerd: its root is an overlay, on which no other can be mounted.
. /payload/common.sh
set -e
# Docker's nesting habit on cgroup v2: what is in the root cgroup keeps it from giving controllers away.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/init
    echo $$ >/sys/fs/cgroup/init/cgroup.procs
fi
told=$(rcontainerd check) || { echo "$told"; exit 1; }
expect "snapshots are full copies" "$told"
rcontainerd >/tmp/log 2>&1 &
manager=$!
eventually rdocker version || { cat /tmp/log; exit 1; }
rdocker load -i /payload/busybox.tar
# As Docker names it.
expect vfs "$(rdocker info -f '{{.Driver}}')"
said=$(rdocker run --rm busybox echo nested) || { cat /tmp/log; exit 1; }
expect nested "$said"
kill $manager
wait $manager
