#!/bin/sh
# Installs the tools of the VPC plane's tests into target/tools/cloud: `cargo clean` deletes them.
# Quick and silent if all tools exist. install-deps.sh installs Python's venv.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
wanted=$root/packaging/dev/cloud-requirements.txt
tools=$root/target/tools/cloud
stamp=$tools/.complete

if [ -e "$stamp" ] && cmp -s "$wanted" "$stamp"; then
    exit 0
fi

echo "fetching the tools of the VPC plane's tests into $tools"
rm -rf "$tools"
mkdir -p "$tools"
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --requirement "$wanted"
cp "$wanted" "$stamp"
