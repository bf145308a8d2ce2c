#!/bin/sh
# Bakes the last known good: a machine that boots without a way to Amazon's document, or behind a NAT
# that is down, has its routes in force all the same. The document is judged and stored whole, so
# neither role nor region needs to be known; nothing in the kernel changes, and no answer of the
# metadata service is kept, which would be this machine's and not the image's.
#
#   bake.sh [WORD]...      more words for reconcile, such as --source URL of a mirror
set -eu

state=/var/lib/trailblazer

# Before the first boot of the agent systemd has not made it.
install -d -m 0750 -o trailblazer -g trailblazer "$state"

# As the agent's own user: what root wrote, the agent couldn't replace. It looks at the kernel too,
# which takes the agent's one capability.
setpriv --reuid=trailblazer --regid=trailblazer --init-groups \
    --bounding-set=-all,+net_admin --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin \
    trailblazer reconcile --cache-only "$@"

# An image without it would look the same and fail where it matters.
test -s "$state/last-known-good"
owner=$(stat -c %U:%G "$state/last-known-good")
if [ "$owner" != trailblazer:trailblazer ]; then
    echo "$state/last-known-good belongs to $owner" >&2
    exit 1
fi

# What tells of this machine's past only.
rm -f "$state"/journal.jsonl* "$state"/lock
