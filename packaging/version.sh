#!/bin/sh
# Prints the text of `trailblazer --version`: the version, and in a clone the commit with its date,
# which are the same on every machine. A source tree without git has neither.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
if commit=$(git -C "$here" log -1 --abbrev=12 --format='%h, %cs' 2>/dev/null); then
    echo "$version ($commit)"
else
    echo "$version"
fi
