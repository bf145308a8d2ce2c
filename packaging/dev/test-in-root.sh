#!/bin/sh
# Runs `make test` inside a bare root file system of a Debian release:
#
#   packaging/dev/test-in-root.sh bookworm                 make test
#   packaging/dev/test-in-root.sh trixie --test purity     cargo test --locked --test purity
#
# Shows that the tests need nothing beyond a minimal Debian, `make` and the Rust toolchain: `make`
# installs the other tools, inside of the root. Needs root, and a mirror with the release. The root
# stays in target/roots for the next run (some GB); TRAILBLAZER_DATA and the network are those of
# this machine, the files are not.
set -eu

codename=${1:?usage: $0 CODENAME [cargo test arguments]}
shift
here=$(cd "$(dirname "$0")/../.." && pwd)
roots=$here/target/roots
root=$roots/test-$codename
mkdir -p "$roots"

exec 9>"$roots/lock-$codename"
flock 9
if [ ! -e "$root/made" ]; then
    mirror=${MIRROR:-$("$here/packaging/dev/debian-mirror.sh")}
    echo "making $root with debootstrap" >&2
    rm -rf "$root"
    if ! debootstrap --variant=minbase --include=ca-certificates,make "$codename" "$root" "$mirror" \
        >"$roots/$codename.log" 2>&1; then
        tail -n 20 "$roots/$codename.log" >&2
        exit 1
    fi
    touch "$root/made"
fi

# With sudo, the checkout belongs to another user.
git() {
    command git -c safe.directory='*' "$@"
}

# The sources of this checkout with its history and changes; the root keeps its own target. A test
# looks for the name of the directory in the binary, so the name is none that rustc was built in.
rm -rf "$root/tb-sources/.git" "$root/clone"
git clone -q --no-checkout --no-hardlinks "$here" "$root/clone"
mkdir -p "$root/tb-sources"
mv "$root/clone/.git" "$root/tb-sources/.git"
rm -rf "$root/clone"
git -C "$here" ls-files -z --cached --others --exclude-standard |
    (cd "$here" && tar --null --verbatim-files-from --ignore-failed-read -cf - -T -) |
    tar -C "$root/tb-sources" -xf -
git -C "$root/tb-sources" reset -q

if [ $# = 0 ]; then
    command='make test'
else
    command='make deps && exec cargo test --locked --no-fail-fast "$@"'
fi
# The mounts end with the namespace. The toolchain is this machine's, and cargo downloads into its
# registry. pivot_root in place of chroot: the kernel refuses user namespaces to a process in a
# chroot, and the tests make their own namespaces.
# shellcheck disable=SC2016 # the inner shell expands them
exec unshare --mount --pid --fork --kill-child sh -eu -c '
    root=$1 rustup=$2 cargo=$3 data=$4 command=$5
    shift 5
    mount --make-rprivate /
    # pivot_root(2) takes a mount point only.
    mount --bind "$root" "$root"
    for dir in /dev /sys; do
        mount --rbind "$dir" "$root$dir"
    done
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/run"
    for dir in "$rustup" "$cargo" ${data:+"$data"}; do
        mkdir -p "$root$dir"
        mount --bind "$dir" "$root$dir"
    done
    for file in /etc/resolv.conf /etc/hosts; do
        [ ! -e "$file" ] || cat "$file" >"$root$file"
    done
    export RUSTUP_HOME="$rustup" CARGO_HOME="$cargo" HOME=/root LC_ALL=C.UTF-8
    export PATH="$cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    mkdir "$root/run/outside"
    cd "$root"
    pivot_root . run/outside
    exec chroot . sh -c "umount -l /run/outside && rmdir /run/outside && cd /tb-sources && $command" sh "$@"
' sh "$root" "${RUSTUP_HOME:-$HOME/.rustup}" "${CARGO_HOME:-$HOME/.cargo}" \
    "${TRAILBLAZER_DATA:-}" "$command" "$@"
