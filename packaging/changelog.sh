#!/bin/sh
# The released sections of CHANGELOG.md as a package's changelog:
#
#   packaging/changelog.sh debian|rpm|date|notes VERSION
#
# `date` prints the day of the newest release, `notes` prints the section of one release unchanged. The
# output has no unreleased changes, so the newest entry of a package's changelog has the package's own
# version.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
maintainer='Trailblazer maintainers <maintainers@trailblazer.example>'
export LC_ALL=C TZ=UTC

# One line per entry: "VERSION DAY" for a release, "* TEXT" for a change, with all its lines joined.
releases() {
    awk '
        function flush_change() { if (change != "") print "* " change; change = "" }
        /^## /  {
            flush_change()
            released = ($0 ~ /^## \[[0-9]/)
            if (released) { gsub(/[][]/, "", $2); print $2, $4 }
            next
        }
        !released || /^### / { flush_change(); next }
        /^- /   { flush_change(); change = substr($0, 3); next }
        /^  +[^ ]/ { sub(/^ +/, ""); change = change " " $0; next }
        /^$/    { flush_change() }
        END     { flush_change() }' "$root/CHANGELOG.md"
}

case "${1:-}" in
    debian)
        releases | {
            trailer=
            while IFS= read -r line; do
                case $line in
                    \**) printf '%s\n' "${line#\* }" | fold -s -w 75 | sed -e 's/ $//' -e '1s/^/  * /' -e '2,$s/^/    /' ;;
                    *)
                        if [ -n "$trailer" ]; then printf '%s\n\n' "$trailer"; fi
                        printf 'trailblazer (%s-1) unstable; urgency=medium\n\n' "${line% *}"
                        trailer=$(printf '\n -- %s  %s' "$maintainer" "$(date -R -d "${line#* }")")
                        ;;
                esac
            done
            printf '%s\n' "$trailer"
        }
        ;;
    rpm)
        first=yes
        releases | while IFS= read -r line; do
            case $line in
                \**) printf '%s\n' "${line#\* }" | fold -s -w 75 | sed -e 's/ $//' -e '1s/^/- /' -e '2,$s/^/  /' ;;
                *)
                    [ "$first" = yes ] || echo
                    first=no
                    printf '* %s %s - %s-1\n' "$(date -d "${line#* }" '+%a %b %d %Y')" "$maintainer" "${line% *}"
                    ;;
            esac
        done
        ;;
    notes)
        awk -v wanted="## [${2:?which version?}]" '
            /^## / { shown = (index($0, wanted) == 1); next }
            shown' "$root/CHANGELOG.md"
        ;;
    date) releases | awk '!/^\*/ { print $2; exit }' ;;
    *)
        echo "usage: $0 debian|rpm|date|notes VERSION" >&2
        exit 64
        ;;
esac
