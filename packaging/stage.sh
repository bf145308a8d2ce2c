#!/bin/sh
# Creates the tree of files of both packages, and the packages' metadata:
#
#   packaging/stage.sh WORK BINARY ARCH      WORK/tree, WORK/licence-tag, …
set -eu

work=$1
binary=$2
case $3 in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *) exit 64 ;;
esac
tree=$work/tree
generated=$work

# Man pages, completions and licences, generated from the types and documents of this commit. The date
# is an argument: with the date in the environment cargo would rebuild some crates for each commit.
env -u SOURCE_DATE_EPOCH "${CARGO:-cargo}" run --quiet --locked --example package_files -- \
    "$generated" "$target" "$SOURCE_DATE_EPOCH"

put() { # MODE SOURCE DESTINATION
    install -D -m "$1" "$2" "$tree/$3"
}
put_gz() { # SOURCE DESTINATION
    mkdir -p "$(dirname "$tree/$2")"
    # -n stores neither name nor time, which would differ between builds.
    gzip -9nc "$1" >"$tree/$2"
    chmod 644 "$tree/$2"
}

put 755 "$binary" usr/bin/trailblazer
for unit in systemd/*; do
    put 644 "$unit" usr/lib/systemd/system/"${unit##*/}"
done
put 644 packaging/files/networkd.conf usr/lib/systemd/networkd.conf.d/trailblazer.conf
put 644 packaging/files/sysusers.conf usr/lib/sysusers.d/trailblazer.conf
put 644 packaging/files/tmpfiles.conf usr/lib/tmpfiles.d/trailblazer.conf
put 644 packaging/files/trailblazer.toml.example etc/trailblazer/trailblazer.toml.example
# Every iproute2 reads /etc; only iproute2 6.5 and later read /usr/share.
put 644 packaging/files/rt_tables.conf etc/iproute2/rt_tables.d/trailblazer.conf
put 644 packaging/files/rt_protos.conf etc/iproute2/rt_protos.d/trailblazer.conf

put 644 "$generated"/completions/trailblazer.bash usr/share/bash-completion/completions/trailblazer
put 644 "$generated"/completions/trailblazer.fish usr/share/fish/vendor_completions.d/trailblazer.fish
for page in "$generated"/man/*; do
    put_gz "$page" "usr/share/man/man${page##*.}/${page##*/}.gz"
done

for page in configuration json operation metrics status vpc; do
    put 644 docs/$page.md usr/share/doc/trailblazer/$page.md
done
put 644 docs/trailblazer.schema.json usr/share/doc/trailblazer/trailblazer.schema.json
for file in packaging/prometheus/*; do
    case $file in *_test.yml) continue ;; esac
    put 644 "$file" usr/share/doc/trailblazer/prometheus/"${file##*/}"
done
for file in packaging/files/dropins/*; do
    put 644 "$file" usr/share/doc/trailblazer/dropins/"${file##*/}"
done
for role in host nat vpc; do
    put 644 examples/$role.toml usr/share/doc/trailblazer/examples/$role.toml
done
