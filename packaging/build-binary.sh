#!/bin/sh
# Builds the release binary, with the same bytes on every machine:
#
#   packaging/build-binary.sh [ARCH]       ARCH as dpkg writes it; this machine's by default
#
# Prints the binary's path on standard output, cargo's messages on standard error. The bytes depend
# only on the sources, Cargo.lock, and the versions of rustc and of the C compiler: the directories
# of the build are mapped to fixed names, in Rust and in aws-lc's C.
set -eu

cd "$(dirname "$0")/.."
here=$(pwd)
cargo=${CARGO:-cargo}
cargo_home=${CARGO_HOME:-$HOME/.cargo}

case $(uname -m) in
    x86_64) native=amd64 ;;
    aarch64) native=arm64 ;;
    *) native=$(uname -m) ;;
esac
arch=${1:-$native}
case $arch in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *)
        echo "$0: no packages for $arch: use amd64 or arm64" >&2
        exit 64
        ;;
esac

if [ "$arch" != "$native" ]; then
    # Debian's cross compilers: crossbuild-essential-arm64 (aws-lc is C and assembler).
    triple=${target%-unknown-*}-linux-gnu
    export "CC_$(echo "$target" | tr - _)=$triple-gcc"
    export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER=$triple-gcc"
fi

# The registry directories must exist before the loop below reads their names. Offline, cargo uses the
# existing directories.
$cargo fetch --quiet --locked --target "$target" >&2

# In rustc and gcc the last match wins, so the order is from general to special.
rust="--remap-path-prefix=$here=/trailblazer"
c="-ffile-prefix-map=$here=/trailblazer"
for registry in "$cargo_home"/registry/src/*; do
    rust="$rust --remap-path-prefix=$registry=/crates"
    c="$c -ffile-prefix-map=$registry=/crates"
done
TRAILBLAZER_COMMIT=$(packaging/version.sh)
export TRAILBLAZER_COMMIT
# The binary contains no date of the build, and some crates' build scripts run again when this variable changes.
unset SOURCE_DATE_EPOCH
export RUSTFLAGS="$rust"
export CFLAGS="$c"
# A separate directory: with alternating flags in one directory cargo would rebuild everything.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/target}/reproducible"
$cargo build --release --locked --target "$target" --bin trailblazer >&2
echo "$CARGO_TARGET_DIR/$target/release/trailblazer"
