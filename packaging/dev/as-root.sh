#!/bin/sh
# Runs a command as root: as it is, or through sudo.
set -eu
if [ "$(id -u)" = 0 ]; then
    exec "$@"
fi
exec sudo "$@"
