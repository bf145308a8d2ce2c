#!/bin/sh
# Fetches the tools of tests/images, which check the images, the DaemonSet and the workflow, into
# target/tools/images: `cargo clean` deletes them. Quick and silent if all tools exist.
# install-deps.sh installs the prerequisites (Python's venv, shellcheck).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
wanted=$root/packaging/dev/images-requirements.txt
tools=$root/target/tools/images
stamp=$tools/.complete

if [ -e "$stamp" ] && cmp -s "$wanted" "$stamp"; then
    exit 0
fi

echo "fetching the image checks' tools (400 MB) into $tools"
rm -rf "$tools"
mkdir -p "$tools"
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile \
    --only-binary :all: --requirement "$wanted"

# cloud-init's schema and units, extracted from the package of Debian or Ubuntu. An installed
# cloud-init would run at the next boot of this machine.
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
# apt downloads as the user _apt, and warns if _apt can't write to the directory.
chmod 755 "$fetched"
download() {
    (cd "$fetched" && apt-get download -qq cloud-init 2>/dev/null)
}
if ! download && ! { "$root"/packaging/dev/as-root.sh apt-get update -qq && download; }; then
    echo "missing: cloud-init's schema, part of Debian's package cloud-init" >&2
    exit 1
fi
dpkg-deb --extract "$fetched"/cloud-init_*.deb "$fetched/root"
mkdir "$tools/cloud-init"
cp "$fetched"/root/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json \
    "$tools/cloud-init/"
# The units are in /lib before Debian 13 and in /usr/lib since; Ubuntu has both names of the network
# stage.
find "$fetched/root" -path '*/systemd/system/cloud-*' -name '*.service' \
    -exec cp {} "$tools/cloud-init/" \;

cp "$wanted" "$stamp"
