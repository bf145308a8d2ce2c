#!/bin/sh
# Stores Amazon's document (ip-ranges.json) in the image as the last known good: a machine that can't
# reach the document at boot, or has a NAT that is down, still gets its routes. The document is checked
# and stored whole, independent of role and region. The kernel stays unchanged, and no answer of the
# metadata service is stored, because the answers describe the build machine.
#
#   bake.sh [ARGUMENT]...      further arguments for reconcile, such as --source URL of a mirror
set -eu

state=/var/lib/trailblazer

# systemd creates the directory only at the agent's first start.
install -d -m 0750 -o trailblazer -g trailblazer "$state"

# As the agent's own user: the agent couldn't replace files of root. The command also reads the kernel,
# which needs the agent's one capability.
setpriv --reuid=trailblazer --regid=trailblazer --init-groups \
    --bounding-set=-all,+net_admin --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin \
    trailblazer reconcile --cache-only "$@"

# Without the file the image would seem correct, but fail at a boot without network.
test -s "$state/last-known-good"
owner=$(stat -c %U:%G "$state/last-known-good")
if [ "$owner" != trailblazer:trailblazer ]; then
    echo "$state/last-known-good belongs to $owner, not to trailblazer:trailblazer" >&2
    exit 1
fi

# The journal and the lock of the build machine.
rm -f "$state"/journal.jsonl* "$state"/lock
