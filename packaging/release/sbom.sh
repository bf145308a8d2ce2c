#!/bin/sh
# The list of all crates in the program, with versions, checksums and licences (an SBOM):
#
#   packaging/release/sbom.sh DIRECTORY        writes trailblazer-VERSION.cdx.json (CycloneDX 1.5)
#
# Installs cargo-cyclonedx, pinned, into target/tools/sbom: a compilation of two minutes; `cargo clean`
# deletes the tool.
set -eu

directory=${1:?which directory?}
directory=$(cd "$directory" && pwd)
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
version=0.5.9
tools=$(pwd)/target/tools/sbom

if [ "$("$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $version" ]; then
    echo "installing cargo-cyclonedx $version into $tools" >&2
    CARGO_TARGET_DIR=$tools/build "$cargo" install --quiet --locked --root "$tools" \
        "cargo-cyclonedx@$version" >&2
    rm -rf "$tools/build"
fi

own=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The tool writes a file beside each manifest of the workspace, and each name of a path into it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/trailblazer"
cp -r Cargo.toml Cargo.lock src benches examples tests "$work/trailblazer/"
(
    cd "$work/trailblazer"
    "$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 \
        --target x86_64-unknown-linux-gnu --override-filename sbom
)
sed "s,file://$work/,file:///," "$work/trailblazer/sbom.json" >"$directory/trailblazer-$own.cdx.json"
