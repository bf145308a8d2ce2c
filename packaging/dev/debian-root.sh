#!/bin/sh
# Makes a fresh root file system of this machine's Debian (or Ubuntu) release, with systemd, as a
# tarball for the tests:
#
#   packaging/dev/debian-root.sh        prints the tarball's path; the first run takes two minutes
#
# Needs root. The tarball is in target/roots, named after its contents; `cargo clean` deletes it.
set -eu

# The packages of a usual machine: minbase lacks an init and all network tools.
include=systemd,systemd-sysv,dbus,iproute2,nftables,iptables,ca-certificates

roots=$(cd "$(dirname "$0")/../.." && pwd)/target/roots
mkdir -p "$roots"
# With sudo, the directory belongs to the calling user, so that `cargo clean` can delete it.
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$roots"
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
tarball=$roots/$codename-$(echo "$include" | cksum | cut -d ' ' -f 1).tar
if [ -e "$tarball" ]; then
    echo "$tarball"
    exit 0
fi

# Tests may run this script in parallel: the first makes the tarball, the others wait.
exec 9>"$roots/lock"
flock 9
if [ ! -e "$tarball" ]; then
    mirror=$("$(dirname "$0")/debian-mirror.sh")
    work=$(mktemp -d "$roots/making.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "making $tarball with debootstrap" >&2
    if ! debootstrap --variant=minbase --include="$include" "$codename" "$work/root" "$mirror" \
        >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        exit 1
    fi
    # All needed packages are installed; the caches would only slow down each unpacking.
    rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
    tar -C "$work/root" --numeric-owner -cf "$work/tar" .
    mv "$work/tar" "$tarball"
fi
echo "$tarball"
