#!/bin/sh
# The files that a release page offers beside the packages, from built packages:
#
#   packaging/release/assets.sh [-k KEY] DIRECTORY PACKAGE...
#
# DIRECTORY receives the packages, for each .deb the program alone as a .tar.gz, the list of all crates
# in the program (CycloneDX), SHA256SUMS, and with KEY (the fingerprint of a secret key in gpg's keyring)
# SHA256SUMS.asc and the public key. packaging/release/sbom.sh installs the tool for the list.
set -eu
umask 022
export LC_ALL=C TZ=UTC

usage() {
    echo "usage: $0 [-k KEY] DIRECTORY PACKAGE..." >&2
    exit 64
}

key=
while getopts k: option; do
    case $option in
        k) key=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
directory=$1
shift
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$directory"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package; do
    install -m 644 "$package" "$directory/"
    case $package in *.deb) ;; *) continue ;; esac
    version=$(dpkg-deb --field "$package" Version)
    name=trailblazer-${version%-*}-linux-$(dpkg-deb --field "$package" Architecture)
    rm -rf "$work/tree"
    dpkg-deb --extract "$package" "$work/tree"
    mkdir "$work/$name"
    cp "$work/tree/usr/bin/trailblazer" "$work/tree/usr/share/doc/trailblazer/copyright" "$work/$name/"
    # The modification time of the program is the date of the commit, in every build.
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$(stat -c %Y "$work/tree/usr/bin/trailblazer")" -cf - "$name" |
        gzip -9n >"$directory/$name.tar.gz"
done
"$here/sbom.sh" "$directory"

cd "$directory"
rm -f SHA256SUMS SHA256SUMS.asc trailblazer.asc
sha256sum -- * >"$work/SHA256SUMS"
install -m 644 "$work/SHA256SUMS" SHA256SUMS
if [ -n "$key" ]; then
    gpg --batch --yes --quiet --local-user "$key" --armor --detach-sign --output SHA256SUMS.asc SHA256SUMS
    gpg --batch --armor --export "$key" >trailblazer.asc
fi
