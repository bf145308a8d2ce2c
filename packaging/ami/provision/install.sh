#!/bin/sh
# Installs the package that the template has copied to /tmp. The package starts no service, because no
# config exists yet.
set -eu

# cloud-init may use the package manager during the first boot. Wait, to avoid lock conflicts and an
# image with half of the work.
cloud-init status --wait >/dev/null || true

if [ -e /tmp/trailblazer.deb ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y /tmp/trailblazer.deb
elif [ -e /tmp/trailblazer.rpm ]; then
    dnf install -q -y /tmp/trailblazer.rpm
else
    echo "found neither /tmp/trailblazer.deb nor /tmp/trailblazer.rpm" >&2
    exit 1
fi
trailblazer --version

# User data of an instance contains the config. The unit waits until cloud-init has written it.
install -D -m 0644 /tmp/cloud-init.conf \
    /etc/systemd/system/trailblazer.service.d/cloud-init.conf
systemctl daemon-reload

# systemd skips the unit until /etc/trailblazer/trailblazer.toml exists (ConditionPathExists).
systemctl enable trailblazer.service
