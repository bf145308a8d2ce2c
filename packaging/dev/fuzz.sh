#!/bin/sh
# Feeds the decoders of foreign bytes with random input:
#
#   packaging/dev/fuzz.sh [SECONDS [TARGET…]]
#
# Runs each target of fuzz/ for SECONDS (60), one after the other, and fails at the first input that
# ends a target. The input stays in target/fuzz/artifacts; a copy in fuzz/seeds/TARGET keeps the fault
# away. Needs no nightly compiler: the code has no `unsafe`, so no sanitizer is of use.
set -eu

version=0.13.2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/target/fuzz
tools=$root/target/tools
seconds=${1:-60}
[ $# -eq 0 ] || shift

cd "$root"
"$root/packaging/dev/install-deps.sh" fuzz
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    CARGO_TARGET_DIR=$work/tool cargo install cargo-fuzz --version "$version" --locked \
        --root "$tools" --quiet
    rm -rf "$work/tool"
fi
PATH=$tools/bin:$PATH

targets=${*:-$(cargo fuzz list)}
for target in $targets; do
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    echo "$target: $seconds s"
    if ! cargo fuzz run --sanitizer none --target-dir "$work" "$target" \
        "$work/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$work/artifacts/$target/" >"$work/$target.log" 2>&1; then
        tail -n 40 "$work/$target.log"
        echo "$target: failed; all output is in $work/$target.log" >&2
        exit 1
    fi
    grep -E 'number_of_executed_units|peak_rss_mb' "$work/$target.log"
done
