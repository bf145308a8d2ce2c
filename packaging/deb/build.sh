#!/bin/sh
# The .deb: packaging/deb/build.sh WORK ARCH VERSION OUT, called by packaging/build.sh
set -eu

work=$1
arch=$2
version=$3
out=$4
here=packaging/deb
tree=$work/deb
cp -a "$work/tree" "$tree"

install -D -m 644 "$work"/completions/_trailblazer \
    "$tree"/usr/share/zsh/vendor-completions/_trailblazer
install -m 644 "$work"/copyright "$tree"/usr/share/doc/trailblazer/copyright
packaging/changelog.sh debian | gzip -9nc >"$tree"/usr/share/doc/trailblazer/changelog.Debian.gz
install -D -m 644 $here/lintian-overrides "$tree"/usr/share/lintian/overrides/trailblazer

# The libraries that the binary is linked with. dpkg-shlibdeps knows only the libraries of this
# machine's architecture; for another architecture the newest glibc symbol in use gives the version.
if [ "$arch" = "$(dpkg --print-architecture)" ]; then
    mkdir -p "$work"/shlibs/debian
    printf 'Source: trailblazer\n\nPackage: trailblazer\nArchitecture: any\n' \
        >"$work"/shlibs/debian/control
    libraries=$(cd "$work"/shlibs && dpkg-shlibdeps -O -e"$tree"/usr/bin/trailblazer 2>/dev/null)
    libraries=${libraries#shlibs:Depends=}
else
    glibc=$(readelf -V "$tree"/usr/bin/trailblazer | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    libraries="libc6 (>= ${glibc#GLIBC_}), libgcc-s1 (>= 4.2)"
fi

mkdir "$tree"/DEBIAN
for script in postinst prerm postrm; do
    install -m 755 $here/$script "$tree"/DEBIAN/$script
done
(cd "$tree" && find etc -type f | sort | sed 's,^,/,') >"$tree"/DEBIAN/conffiles
(cd "$tree" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\0' |
    sort -z | xargs -0 md5sum) >"$tree"/DEBIAN/md5sums
chmod 644 "$tree"/DEBIAN/conffiles "$tree"/DEBIAN/md5sums
# In KiB, each file and directory rounded up (policy 5.6.20), independent of this file system.
size=$(find "$tree" -path "$tree"/DEBIAN -prune -o -type f -printf '%s\n' -o -printf '1\n' |
    awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" \
    -e "s/@LIBRARIES@/$libraries/" $here/control.in >"$tree"/DEBIAN/control
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# One thread: with several, xz cuts the stream into blocks.
export DPKG_DEB_THREADS_MAX=1
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/trailblazer_${version}_$arch.deb"
