#!/bin/sh
# Adds packages to the repositories in a branch that a static web host serves, such as GitHub Pages:
#
#   packaging/release/pages.sh -k KEY -u URL REMOTE PACKAGE...
#
# REMOTE is a git remote with the branch gh-pages; the first run makes the branch. KEY and URL as in
# repository.sh. A push by somebody else in the meantime fails the script, which can run again.
set -eu

usage() {
    echo "usage: $0 -k KEY -u URL REMOTE PACKAGE..." >&2
    exit 64
}

key=
url=
while getopts k:u: option; do
    case $option in
        k) key=$OPTARG ;;
        u) url=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
if [ -z "$key" ] || [ -z "$url" ] || [ $# -lt 2 ]; then usage; fi
remote=$1
shift
here=$(cd "$(dirname "$0")" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Status 2 means that the remote has no such branch; any other failure must not start an empty one.
status=0
git ls-remote --quiet --exit-code --heads "$remote" gh-pages >/dev/null || status=$?
case $status in
    0) git clone --quiet --depth 1 --branch gh-pages "$remote" "$work/pages" ;;
    2)
        git init --quiet "$work/pages"
        git -C "$work/pages" symbolic-ref HEAD refs/heads/gh-pages
        ;;
    *) exit "$status" ;;
esac
# Without this file GitHub Pages runs a site generator over the packages.
touch "$work/pages/.nojekyll"
"$here/repository.sh" -k "$key" -u "$url" "$work/pages" "$@"

git -C "$work/pages" add --all
git -C "$work/pages" -c user.name=Trailblazer -c user.email=maintainers@trailblazer.example \
    commit --quiet --message "repositories: add $(basename "$1")"
git -C "$work/pages" push --quiet "$remote" HEAD:gh-pages
