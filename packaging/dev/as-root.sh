#!/bin/sh
# Runs a command as root: directly if the user is root, else through sudo.
set -eu
if [ "$(id -u)" = 0 ]; then
    exec "$@"
fi
exec sudo "$@"
