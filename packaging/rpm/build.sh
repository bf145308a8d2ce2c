#!/bin/sh
# The .rpm: packaging/rpm/build.sh WORK ARCH VERSION REVISION OUT, called by packaging/build.sh
set -eu

work=$1
case $2 in
    amd64) arch=x86_64 ;;
    arm64) arch=aarch64 ;;
    *) exit 64 ;;
esac
version=$3
revision=$4
out=$5
here=$(pwd)/packaging/rpm
tree=$work/rpm
cp -a "$work/tree" "$tree"

install -D -m 644 "$work"/completions/_trailblazer \
    "$tree"/usr/share/zsh/site-functions/_trailblazer
install -D -m 644 LICENSE-MIT "$tree"/usr/share/licenses/trailblazer/LICENSE-MIT
install -m 644 "$work"/LICENSE.dependencies "$tree"/usr/share/licenses/trailblazer/

# Debian's changelog, the way rpm writes it.
awk '
    /^[a-z]/ { gsub(/[()]/, "", $2); version = $2; lines = "" }
    /^  \* / { lines = lines "- " substr($0, 5) "\n" }
    /^    /  { lines = lines "  " substr($0, 5) "\n" }
    /^ -- /  {
        split($0, part, "  "); sub(/^ -- /, "", part[1])
        split(part[2], day, /[ ,]+/)
        printf "* %s %s %s %s %s - %s\n%s\n", day[1], day[3], day[2], day[4], part[1], version, lines
    }' packaging/changelog >"$work"/rpm-changelog
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# The clock and the name of this machine must not show. `rpmbuild` leaves the build root alone for
# %install's sake: the spec copies the tree.
rpmbuild -bb --quiet --target "$arch-linux" \
    --define "_topdir $work/rpmbuild" \
    --define "_rpmdir $work/rpms" \
    --define "the_tree $tree" \
    --define "the_scripts $here" \
    --define "the_changelog $work/rpm-changelog" \
    --define "the_version $version" \
    --define "the_release $revision" \
    --define "the_licence $(cat "$work"/licence-tag)" \
    --define "_buildhost reproducible" \
    --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" \
    "$here"/trailblazer.spec
mv "$work"/rpms/"$arch"/trailblazer-*.rpm "$out"/
