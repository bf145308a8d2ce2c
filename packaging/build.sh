#!/bin/sh
# The packages: `make packages`, or with choices
#
#   packaging/build.sh [-a ARCH] [-r REVISION] [-o DIRECTORY]
#
# One .deb and one .rpm in target/packages, from one tree of files. dpkg-deb and rpmbuild build
# them: every distribution has both, they give directories, changelogs, licences and configuration
# files their right marks, and there is nothing to compile first.
#
# Two runs give the same bytes: all dates are that of the last commit (SOURCE_DATE_EPOCH), owners,
# modes, order and locale are fixed, and build-binary.sh sees to the binary.
set -eu

cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC

arch=$(dpkg --print-architecture)
revision=1
out=target/packages
while getopts a:r:o: option; do
    case $option in
        a) arch=$OPTARG ;;
        r) revision=$OPTARG ;;
        o) out=$OPTARG ;;
        *)
            echo "usage: $0 [-a ARCH] [-r REVISION] [-o DIRECTORY]" >&2
            exit 64
            ;;
    esac
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    # A tarball has no commits: then the changelog's newest entry.
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null ||
        date -d "$(packaging/changelog.sh date)" +%s)
fi
export SOURCE_DATE_EPOCH

# TRAILBLAZER_BINARY: to package one that is there already.
binary=${TRAILBLAZER_BINARY:-$(packaging/build-binary.sh "$arch")}

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packaging/stage.sh "$work" "$binary" "$arch"
# The same instant for every file, whenever it was written.
find "$work/tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# Of earlier versions and revisions: what lies there afterwards is what was built now.
case $arch in amd64) rpm_arch=x86_64 ;; *) rpm_arch=aarch64 ;; esac
rm -f "$out"/trailblazer_*_"$arch".deb "$out"/trailblazer-*."$rpm_arch".rpm
packaging/deb/build.sh "$work" "$arch" "$version-$revision" "$out"
packaging/rpm/build.sh "$work" "$rpm_arch" "$version" "$revision" "$out"
