#!/bin/sh
# Builds the packages: `make packages`, or with options
#
#   packaging/build.sh [-a ARCH] [-r REVISION] [-o DIRECTORY]
#
# One .deb and one .rpm in target/packages, from one tree of files. dpkg-deb and rpmbuild build the
# packages: every distribution has both programs, both mark directories, changelogs, licences and
# configuration files correctly, and neither needs a compilation first.
#
# Two runs give the same bytes: all dates are the date of the last commit (SOURCE_DATE_EPOCH), owners,
# modes, order and locale are fixed, and build-binary.sh builds a reproducible binary.
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
    # A tarball has no commits: use the date of the changelog's newest entry.
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null ||
        date -d "$(packaging/changelog.sh date)" +%s)
fi
export SOURCE_DATE_EPOCH

# TRAILBLAZER_BINARY names an existing binary to package.
binary=${TRAILBLAZER_BINARY:-$(packaging/build-binary.sh "$arch")}

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packaging/stage.sh "$work" "$binary" "$arch"
# One modification time for all files.
find "$work/tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# Delete earlier versions and revisions, so that the directory holds only the new packages.
case $arch in amd64) rpm_arch=x86_64 ;; *) rpm_arch=aarch64 ;; esac
rm -f "$out"/trailblazer_*_"$arch".deb "$out"/trailblazer-*."$rpm_arch".rpm
packaging/deb/build.sh "$work" "$arch" "$version-$revision" "$out"
packaging/rpm/build.sh "$work" "$rpm_arch" "$version" "$revision" "$out"
