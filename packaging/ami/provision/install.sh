#!/bin/sh
# Installs the package that the template put at /tmp. Starts nothing: there is no config yet, and
# the package starts no service that isn't configured.
set -eu

# The first boot's own work with the package manager would be in the way, and half done in the image.
cloud-init status --wait >/dev/null || true

if [ -e /tmp/trailblazer.deb ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y /tmp/trailblazer.deb
elif [ -e /tmp/trailblazer.rpm ]; then
    dnf install -q -y /tmp/trailblazer.rpm
else
    echo "neither /tmp/trailblazer.deb nor /tmp/trailblazer.rpm is there" >&2
    exit 1
fi
trailblazer --version

# Who launches the image writes the config with cloud-init: the unit waits for it.
install -D -m 0644 /tmp/cloud-init.conf \
    /etc/systemd/system/trailblazer.service.d/cloud-init.conf
systemctl daemon-reload

# Skipped at each boot until /etc/trailblazer/trailblazer.toml is there (ConditionPathExists).
systemctl enable trailblazer.service
