#!/bin/sh
# Deletes the build machine's own data, so that each instance of the image has its own identity.
set -eu

rm -f /tmp/trailblazer.deb /tmp/trailblazer.rpm /tmp/cloud-init.conf

if command -v apt-get >/dev/null 2>&1; then
    apt-get clean
    find /var/lib/apt/lists -type f -delete
else
    dnf clean all >/dev/null
fi

# Host keys and machine id must differ between instances; cloud-init and systemd create new ones.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
cloud-init clean --logs
truncate -s 0 /etc/machine-id
rm -f /var/lib/dbus/machine-id

journalctl --rotate --vacuum-time=1s >/dev/null 2>&1 || true
sync
