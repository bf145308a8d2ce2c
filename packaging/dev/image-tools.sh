#!/bin/sh
# Fetches what tests/images checks the images, the DaemonSet and the workflow with, into
# target/tools/images: it goes away with `cargo clean`. Quick and silent when all is there. What must
# be installed for it (Python's venv, shellcheck) is install-deps.sh's.
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

# cloud-init's schema and its units, out of Debian's or Ubuntu's package. Installing it would make
# it run at the next boot of this machine.
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
# _apt downloads where it may write, and warns where it may not.
chmod 755 "$fetched"
download() {
    (cd "$fetched" && apt-get download -qq cloud-init 2>/dev/null)
}
if ! download && ! { "$root"/packaging/dev/as-root.sh apt-get update -qq && download; }; then
    echo "missing: cloud-init's schema; Debian's package cloud-init has it" >&2
    exit 1
fi
dpkg-deb --extract "$fetched"/cloud-init_*.deb "$fetched/root"
mkdir "$tools/cloud-init"
cp "$fetched"/root/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json \
    "$tools/cloud-init/"
# In /lib before Debian's trixie, in /usr/lib since; Ubuntu's has both names of the network stage.
find "$fetched/root" -path '*/systemd/system/cloud-*' -name '*.service' \
    -exec cp {} "$tools/cloud-init/" \;

cp "$wanted" "$stamp"
