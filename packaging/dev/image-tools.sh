#!/bin/sh
# Fetches what tests/images checks the images, the DaemonSet and the workflow with, into
# target/tools/images: it goes away with `cargo clean`, and nothing is installed on this machine but
# Python's venv and shellcheck, where they are missing. Quick and silent when all is there.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
wanted=$root/packaging/dev/images-requirements.txt
tools=$root/target/tools/images
stamp=$tools/.complete

if [ -e "$stamp" ] && cmp -s "$wanted" "$stamp" && command -v shellcheck >/dev/null 2>&1; then
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    sudo=""
else
    sudo="sudo"
fi

# Of the distribution: a venv's own shellcheck is there for one architecture only.
missing=""
python3 -m ensurepip --version >/dev/null 2>&1 || missing="python3-venv"
command -v shellcheck >/dev/null 2>&1 || missing="$missing shellcheck"
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing: $missing (Debian's names of the packages)" >&2
        exit 1
    fi
    echo "installing $missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing >/dev/null
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
if ! download && ! { $sudo apt-get update -qq && download; }; then
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
