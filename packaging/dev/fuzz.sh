#!/bin/sh
# Feeds the decoders of foreign bytes with random input:
#
#   packaging/dev/fuzz.sh [SECONDS [TARGET…]]
#
# Runs each target of fuzz/ for SECONDS (60), one after the other, and fails at the first input that
# ends a target. The input stays in target/fuzz/artifacts; a copy in fuzz/seeds/TARGET keeps the fault
# away. Needs no nightly compiler: the code has no `unsafe`, so no sanitizer is of use. The first call
# fetches and builds cargo-fuzz into target/tools, and builds the targets: several minutes.
set -eu

version=0.13.2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/target/fuzz
tools=$root/target/tools
seconds=${1:-60}
case $seconds in
    *[!0-9]* | '') echo "usage: $0 [SECONDS [TARGET…]]" >&2; exit 64 ;;
esac
[ $# -eq 0 ] || shift

cd "$root"
if ! command -v cargo >/dev/null; then
    echo "$0: cargo is missing: install Rust (https://rustup.rs)" >&2
    exit 1
fi
"$root/packaging/dev/install-deps.sh" fuzz
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    echo "building cargo-fuzz $version into target/tools, once"
    if ! CARGO_TARGET_DIR=$work/tool cargo install cargo-fuzz --version "$version" --locked \
        --root "$tools" --quiet; then
        echo "$0: cannot install cargo-fuzz $version (the first call needs the crate registry)" >&2
        exit 1
    fi
    rm -rf "$work/tool"
fi
PATH=$tools/bin:$PATH

# Runs a step with its output in a file, which is shown if the step fails.
logged() {
    log=$work/$1.log
    message=$2
    shift 2
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "$0: $message; all output is in $log" >&2
        exit 1
    fi
}

known=$(cargo fuzz list)
targets=${*:-$known}
for target in $targets; do
    if ! echo "$known" | grep -qxF "$target"; then
        printf '%s: no target %s; there are:\n%s\n' "$0" "$target" "$known" >&2
        exit 64
    fi
done
mkdir -p "$work"
for target in $targets; do
    echo "$target: building"
    logged "$target" "cannot build $target" \
        cargo fuzz build --sanitizer none --target-dir "$work" "$target"
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    echo "$target: $seconds s"
    logged "$target" "$target failed" cargo fuzz run --sanitizer none --target-dir "$work" \
        "$target" "$work/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$work/artifacts/$target/"
    grep -E 'number_of_executed_units|peak_rss_mb' "$work/$target.log"
done
