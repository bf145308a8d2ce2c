#!/bin/sh
# Adds packages to an apt and a yum repository, two trees of static files for any web server:
#
#   packaging/release/repository.sh -k KEY [-u URL] DIRECTORY PACKAGE...
#
# KEY is the fingerprint of a secret key in gpg's keyring, URL the public address of DIRECTORY. Packages
# of earlier releases stay in DIRECTORY, so that a fleet can install an earlier version again.
#
#   DIRECTORY/apt/dists/stable/InRelease       apt's signed index
#   DIRECTORY/apt/pool/main/t/trailblazer/     .deb files
#   DIRECTORY/yum/ARCH/repodata/repomd.xml.asc the signature of dnf's index
#   DIRECTORY/yum/ARCH/                        .rpm files, each with a signature
#   DIRECTORY/trailblazer.asc                  the public key
#   DIRECTORY/trailblazer.sources, .repo       the settings for apt and dnf
set -eu
umask 022
export LC_ALL=C TZ=UTC

usage() {
    echo "usage: $0 -k KEY [-u URL] DIRECTORY PACKAGE..." >&2
    exit 64
}

key=
url=https://packages.trailblazer.example
while getopts k:u: option; do
    case $option in
        k) key=$OPTARG ;;
        u) url=${OPTARG%/} ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
if [ -z "$key" ] || [ $# -lt 2 ]; then usage; fi
directory=$1
shift

gpg --batch --list-secret-keys "$key" >/dev/null 2>&1 || {
    echo "$0: gpg has no secret key $key" >&2
    exit 1
}
sign() {
    gpg --batch --yes --quiet --local-user "$key" --armor "$@"
}

pool=pool/main/t/trailblazer
for package; do
    case $package in
        *.deb) place=$directory/apt/$pool ;;
        *.aarch64.rpm) place=$directory/yum/aarch64 ;;
        *.x86_64.rpm) place=$directory/yum/x86_64 ;;
        *)
            echo "$0: $package is neither a .deb nor an .rpm of a known architecture" >&2
            exit 64
            ;;
    esac
    mkdir -p "$place"
    install -p -m 644 "$package" "$place/"
    # A signature inside an .rpm changes the bytes of the file; a .deb has the index's signature only.
    case $package in
        *.rpm)
            # rpm's default program is gpg2, a name that Debian does not have.
            rpmsign --define "_gpg_name $key" --define "__gpg $(command -v gpg)" \
                --addsign "$place/${package##*/}" >/dev/null
            ;;
    esac
done

date=${SOURCE_DATE_EPOCH:-$(date +%s)}

index_apt() (
    cd "$directory/apt"
    release=dists/stable
    rm -rf "$release"
    for arch in amd64 arm64; do
        binary=$release/main/binary-$arch
        mkdir -p "$binary"
        apt-ftparchive --arch "$arch" packages pool >"$binary/Packages"
        gzip -9nk "$binary/Packages"
        xz -9k "$binary/Packages"
    done
    apt-ftparchive \
        -o APT::FTPArchive::Release::Origin=Trailblazer \
        -o APT::FTPArchive::Release::Label=Trailblazer \
        -o APT::FTPArchive::Release::Suite=stable \
        -o APT::FTPArchive::Release::Codename=stable \
        -o APT::FTPArchive::Release::Architectures='amd64 arm64' \
        -o APT::FTPArchive::Release::Components=main \
        release "$release" >"$release.new"
    sed "s/^Date: .*/Date: $(date -u -d "@$date" '+%a, %d %b %Y %H:%M:%S UTC')/" "$release.new" \
        >"$release/Release"
    rm "$release.new"
    sign --clearsign --output "$release/InRelease" "$release/Release"
    sign --detach-sign --output "$release/Release.gpg" "$release/Release"
)

index_yum() {
    for tree in "$directory"/yum/*/; do
        createrepo_c --quiet --no-database --revision "$date" \
            --set-timestamp-to-revision "$tree"
        sign --detach-sign --output "$tree/repodata/repomd.xml.asc" "$tree/repodata/repomd.xml"
    done
}

[ ! -d "$directory/apt" ] || index_apt
[ ! -d "$directory/yum" ] || index_yum

sign --export "$key" >"$directory/trailblazer.asc"
cat >"$directory/trailblazer.sources" <<END
Types: deb
URIs: $url/apt
Suites: stable
Components: main
Signed-By: /etc/apt/keyrings/trailblazer.asc
END
cat >"$directory/trailblazer.repo" <<END
[trailblazer]
name=Trailblazer
baseurl=$url/yum/\$basearch
gpgkey=$url/trailblazer.asc
gpgcheck=1
repo_gpgcheck=1
enabled=1
END
