#!/bin/sh
# Installs the tools that building, packaging, the demo, the tests or the bench need:
#
#   packaging/dev/install-deps.sh build|packages|release|deny|demo|test|boot|bench|instructions|fuzz
#
# Quick and silent if all tools exist. Installs missing tools with apt-get (through sudo if not root);
# without apt-get, prints the missing tools and stops.
set -eu

# tool:package (names as in Debian and Ubuntu); *.so.* is a library for LD_PRELOAD
build="cc:gcc make:make ld:binutils"
packages="$build git:git dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev rpmbuild:rpm readelf:binutils xz:xz-utils"
release="dpkg-deb:dpkg apt-ftparchive:apt-utils createrepo_c:createrepo-c rpmsign:rpm gpg:gpg gpg-agent:gpg-agent xz:xz-utils"
deny="$build ensurepip:python3-venv"
demo="$build ip:iproute2 tc:iproute2 nft:nftables iptables:iptables unshare:util-linux setpriv:util-linux mount:mount"
test="$demo iptables:iptables iptables-restore:iptables \
    iptables-legacy:iptables ip6tables-legacy:iptables xz:xz-utils \
    conntrack:conntrack sysctl:procps script:bsdutils libfaketime.so.1:libfaketime \
    systemd-networkd:systemd \
    ${packages#"$build "} $release dnf:dnf debootstrap:debootstrap cpio:cpio lintian:lintian rpmlint:rpmlint \
    shellcheck:shellcheck ensurepip:python3-venv man:man-db lexgrog:man-db bash:bash zsh:zsh fish:fish"
boot="$demo ${packages#"$build "} debootstrap:debootstrap systemd-nspawn:systemd-container"
# libFuzzer is C++.
fuzz="$build c++:g++"
bench="$test bird:bird2 birdc:bird2"
instructions="$build valgrind:valgrind gdb:gdb"

# The tests check the alert rules with promtool. Debian 13 has a package of that name; before,
# promtool is part of the package prometheus, whose daemon must not be installed here. The script
# extracts only this one file, into a directory that `cargo clean` deletes.
promtool=$(cd "$(dirname "$0")/../.." && pwd)/target/tools/promtool

case "${1:-test}" in
    build) wanted=$build ;;
    packages) wanted=$packages ;;
    release) wanted=$release ;;
    deny) wanted=$deny ;;
    demo) wanted=$demo ;;
    test) wanted=$test ;;
    boot) wanted=$boot ;;
    bench) wanted=$bench ;;
    instructions) wanted=$instructions ;;
    fuzz) wanted=$fuzz ;;
    *)
        echo "usage: $0 build|packages|release|deny|demo|test|boot|bench|instructions|fuzz" >&2
        exit 64
        ;;
esac

# On Debian a user's PATH lacks the directories of ip and nft, and every PATH lacks the directory of
# networkd. The tests run networkd beside the agent in a namespace, never on this machine itself.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd

is_there() {
    case $1 in
        # Debian's directory has the architecture in its name.
        *.so.*) set -- /usr/lib*/faketime/"$1" /usr/lib/*/faketime/"$1" ;;
        # venv needs ensurepip, which Debian splits from Python's standard library.
        ensurepip) python3 -m ensurepip --version >/dev/null 2>&1; return ;;
        *) command -v "$1" >/dev/null 2>&1; return ;;
    esac
    for file; do
        [ -e "$file" ] && return 0
    done
    return 1
}

find_missing() {
    tools=""
    packages=""
    for pair in $wanted; do
        is_there "${pair%%:*}" && continue
        tools="$tools ${pair%%:*}"
        case " $packages " in
            *" ${pair#*:} "*) ;;
            *) packages="$packages ${pair#*:}" ;;
        esac
    done
    # The compiler needs the C library's headers.
    if [ ! -e /usr/include/stdlib.h ]; then
        tools="$tools stdlib.h"
        packages="$packages libc6-dev"
    fi
}

if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1; then
    sudo="sudo"
else
    sudo="none"
fi

# iptables-legacy loads these kernel modules automatically, but has no permission to do so in the
# tests' user namespaces. A loaded module alone creates no table and filters nothing.
load_modules() {
    case $wanted in *iptables-legacy*) ;; *) return 0 ;; esac
    for module in ip_tables ip6_tables; do
        [ -e "/proc/net/${module}_names" ] && continue
        if [ "$sudo" = none ] || ! $sudo modprobe "$module"; then
            echo "tests of iptables-legacy will fail without the kernel module $module" \
                "(as root: modprobe $module)" >&2
        fi
    done
}

install_missing() {
    if [ "$sudo" = none ]; then
        echo "missing:$tools" >&2
        echo "as root: apt-get install$packages" >&2
        exit 1
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing:$tools" >&2
        echo "no apt-get here: install the packages that hold them (on Debian:$packages)" >&2
        exit 1
    fi

    echo "installing$packages (for$tools)"
    # The package bird2 starts its routing daemon at installation. The machine must not run a routing
    # daemon, so this policy forbids the start of services (invoke-rc.d(8)).
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
        $sudo chmod 755 $policy
        trap '$sudo rm -f $policy' EXIT
    fi
    $sudo apt-get update -qq
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of packages
    if ! $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"

    find_missing
    if [ -n "$tools" ]; then
        echo "still missing after the installation:$tools" >&2
        exit 1
    fi
}

has_promtool() {
    [ -x "$promtool" ] || command -v promtool >/dev/null 2>&1
}

# Needs no root if apt's package lists exist.
download_promtool() {
    for package in promtool prometheus; do
        (cd "$1" && apt-get download -qq "$package") &&
            dpkg-deb --fsys-tarfile "$1/$package"_*.deb |
            tar -xO ./usr/bin/promtool >"$1/promtool" &&
            chmod 755 "$1/promtool" && "$1/promtool" --version >/dev/null && return
    done
    return 1
}

fetch_promtool() {
    echo "fetching promtool (19 MB) into $promtool"
    fetched=$(mktemp -d)
    if download_promtool "$fetched" 2>/dev/null ||
        { $sudo apt-get update -qq && download_promtool "$fetched"; }; then
        mkdir -p "$(dirname "$promtool")"
        mv "$fetched/promtool" "$promtool"
        rm -rf "$fetched"
    else
        rm -rf "$fetched"
        echo "NOT TESTED without promtool: alert rules, dashboard and the format of the metrics;" \
            "install promtool on the PATH, from Debian's package promtool (12 and older:" \
            "prometheus) or from https://prometheus.io/download" >&2
    fi
}

find_missing
[ -z "$tools" ] || install_missing
if [ "${1:-test}" = test ] && ! has_promtool; then
    fetch_promtool
fi
load_modules
