#!/bin/sh
# Fetches the tools of tests/vpc_templates, which check the CloudFormation template and the Terraform module,
# and of tests/vpc_moto, an account of EC2 with signatures and policies, into target/tools/vpc: `cargo clean`
# deletes them. Quick and silent if all tools exist.
# install-deps.sh installs the prerequisite (Python's venv).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
wanted=$root/packaging/dev/vpc-requirements.txt
tools=$root/target/tools/vpc
stamp=$tools/.complete

if [ -e "$stamp" ] && cmp -s "$wanted" "$stamp"; then
    exit 0
fi

echo "fetching the tools for the VPC's templates (200 MB) into $tools"
rm -rf "$tools"
mkdir -p "$tools"
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile \
    --only-binary :all: --requirement "$wanted"
cp "$wanted" "$stamp"
