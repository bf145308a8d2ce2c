#!/bin/sh
# A fresh root of the Debian (or Ubuntu) that runs here, with systemd, as a tarball that tests unpack:
#
#   packaging/dev/debian-root.sh        prints the tarball's path; two minutes when it isn't there yet
#
# As root. It lies in target/roots, named after what is in it, and goes away with `cargo clean`.
set -eu

# What a machine has that the package is installed on: minbase lacks an init and all network tools.
include=systemd,systemd-sysv,dbus,iproute2,nftables,iptables,ca-certificates

roots=$(cd "$(dirname "$0")/../.." && pwd)/target/roots
mkdir -p "$roots"
# Through sudo: the directory is the user's who may clean it away.
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$roots"
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
tarball=$roots/$codename-$(echo "$include" | cksum | cut -d ' ' -f 1).tar
if [ -e "$tarball" ]; then
    echo "$tarball"
    exit 0
fi

# Tests may ask side by side: the first makes it, the others wait.
exec 9>"$roots/lock"
flock 9
if [ ! -e "$tarball" ]; then
    # The mirror that this machine itself uses; the updates' and others' have another code name.
    # shellcheck disable=SC2016 # apt expands them
    mirror=$(apt-get indextargets --format '$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)' |
        awk -v codename="$codename" \
            '$1 == "Packages" && $2 == codename && $3 == "main" { print $4; exit }')
    # apt also takes a list of mirrors from a file, which debootstrap doesn't know (apt-transport-mirror(1)).
    case $mirror in
        mirror+file:* | mirror:/*)
            list=${mirror#*:}
            mirror=$(sed -n 's/^[[:space:]]*\(https\{0,1\}:[^[:space:]]*\).*/\1/p' "${list#//}" | head -n 1)
            ;;
    esac
    if [ -z "$mirror" ]; then
        echo "$0: apt knows no mirror of $codename (apt-get update?)" >&2
        exit 1
    fi
    work=$(mktemp -d "$roots/making.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "making $tarball with debootstrap" >&2
    if ! debootstrap --variant=minbase --include="$include" "$codename" "$work/root" "$mirror" \
        >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        exit 1
    fi
    # Everything that a package could need is in; what is left would only be unpacked each time.
    rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
    tar -C "$work/root" --numeric-owner -cf "$work/tar" .
    mv "$work/tar" "$tarball"
fi
echo "$tarball"
