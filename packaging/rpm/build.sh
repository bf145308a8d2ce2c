#!/bin/sh
# The .rpm: packaging/rpm/build.sh WORK ARCH VERSION REVISION OUT, called by packaging/build.sh
set -eu

work=$1
arch=$2 # as rpm writes it
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

packaging/changelog.sh rpm >"$work"/rpm-changelog
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# The package must not contain this machine's clock or name. rpmbuild clears the build root before
# %install, so the spec copies the tree.
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
