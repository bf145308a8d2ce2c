#!/bin/sh
# Prints the package mirror of this machine's Debian (or Ubuntu) release, for debootstrap.
set -eu

# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
# This machine's own mirror; update and third-party mirrors have another code name.
# shellcheck disable=SC2016 # apt expands them
mirror=$(apt-get indextargets --format '$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)' |
    awk -v codename="$codename" \
        '$1 == "Packages" && $2 == codename && $3 == "main" { print $4; exit }')
# apt also accepts a file with a list of mirrors, debootstrap doesn't (apt-transport-mirror(1)).
case $mirror in
    mirror+file:* | mirror:/*)
        list=${mirror#*:}
        mirror=$(sed -n 's/^[[:space:]]*\(https\{0,1\}:[^[:space:]]*\).*/\1/p' "${list#//}" | head -n 1)
        ;;
esac
if [ -z "$mirror" ]; then
    echo "$0: apt has no mirror of $codename; run apt-get update" >&2
    exit 1
fi
echo "$mirror"
