#!/bin/sh
# First program of the machine. The initramfs itself cannot be a pivot_root's old root, so everything moves to a tmpfs first.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t tmpfs -o mode=0755 tmpfs /new
cp -a /bin /dev /etc /proc /root /run /overlay.ko /run-tests /sys /tmp /new/
exec switch_root /new /bin/sh /run-tests
