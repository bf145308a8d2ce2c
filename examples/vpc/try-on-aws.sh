#!/bin/sh
# Tries the vpc role on EC2 itself, in an empty VPC that this script makes and deletes. Takes about five
# minutes, and costs nothing: a VPC, an internet gateway, a route table and prefix lists are free.
#
#   examples/vpc/try-on-aws.sh us-east-1
#
# Needs the AWS CLI with credentials that may change VPCs, and a trailblazer binary (TRAILBLAZER=PATH;
# default: target/release/trailblazer, else the one of the PATH). TRAILBLAZER_SOURCE names another source
# of the document. The report at the end contains ids of
# the deleted objects and no account, no key and no address of yours.
set -eu

region=${1:-${AWS_REGION:-}}
if [ -z "$region" ]; then
    echo "usage: $0 REGION" >&2
    exit 64
fi
export AWS_REGION="$region" AWS_DEFAULT_REGION="$region" AWS_PAGER=""

trailblazer=${TRAILBLAZER:-}
if [ -z "$trailblazer" ]; then
    built=$(cd "$(dirname "$0")/../.." && pwd)/target/release/trailblazer
    if [ -x "$built" ]; then trailblazer=$built; else trailblazer=trailblazer; fi
fi
for program in aws "$trailblazer"; do
    if ! command -v "$program" >/dev/null; then
        echo "missing: $program" >&2
        exit 1
    fi
done

# A name of its own, so that no list and no table of another try or of the real fleet is touched.
name=trailblazer-try-$$-$(date +%s)
work=$(mktemp -d)
report=$work/report.txt
failed=0
vpc='' igw='' table='' list=''

ec2() {
    aws ec2 "$@" --output text
}

say() {
    printf '\n== %s\n' "$*"
    printf '\n== %s\n' "$*" >>"$report"
}

# Runs a command, keeps its output and its exit code for the report, and compares the code.
expect() {
    wanted=$1
    shift
    set +e
    "$@" >"$work/out" 2>&1
    code=$?
    set -e
    cat "$work/out"
    { cat "$work/out"; echo "exit code $code, expected $wanted"; } >>"$report"
    if [ "$code" -ne "$wanted" ]; then
        echo "!! exit code $code, expected $wanted"
        failed=1
    fi
}

# A sentence, and the command that proves it.
prove() {
    sentence=$1
    shift
    if "$@"; then
        echo "ok       $sentence" | tee -a "$report"
    else
        echo "NOT TRUE $sentence" | tee -a "$report"
        failed=1
    fi
}

run() {
    "$trailblazer" "$@" -c "$work/vpc.toml" --state-dir "$work/state"
}

lists() {
    ec2 describe-managed-prefix-lists --filters "Name=prefix-list-name,Values=$name-ipv4" \
        --query "PrefixLists[?!starts_with(State, 'delete-')].PrefixListId"
}

routes() {
    ec2 describe-route-tables --route-table-ids "$table" \
        --query 'RouteTables[0].Routes[?DestinationPrefixListId].GatewayId'
}

entries() {
    ec2 get-managed-prefix-list-entries --prefix-list-id "$list" --query 'length(Entries)'
}

is_one() { [ "$(echo "$1" | wc -w)" -eq 1 ]; }
is_none() { [ -z "$1" ] || [ "$1" = None ]; }
is_same() { [ "$1" = "$2" ]; }
is_many() { [ "$1" -gt 1 ]; }

clean_up() {
    trap - EXIT INT TERM
    set +e
    say "Cleaning up"
    for one in $(lists) $list; do
        # Most often the flush has deleted both.
        [ -n "$table" ] && ec2 delete-route --route-table-id "$table" \
            --destination-prefix-list-id "$one" >/dev/null 2>&1
        ec2 delete-managed-prefix-list --prefix-list-id "$one" >/dev/null 2>&1
    done
    [ -n "$table" ] && ec2 delete-route-table --route-table-id "$table" >/dev/null
    if [ -n "$igw" ]; then
        [ -n "$vpc" ] && ec2 detach-internet-gateway --internet-gateway-id "$igw" --vpc-id "$vpc" >/dev/null
        ec2 delete-internet-gateway --internet-gateway-id "$igw" >/dev/null
    fi
    [ -n "$vpc" ] && ec2 delete-vpc --vpc-id "$vpc" >/dev/null
    left=$(ec2 describe-vpcs --filters "Name=tag:Name,Values=$name" --query 'Vpcs[].VpcId')
    if is_none "$left"; then
        echo "everything that the script made is deleted"
    else
        echo "left: $left; delete it in the console" >&2
        failed=1
    fi
    say "Result: $(if [ "$failed" -eq 0 ]; then echo "as documented"; else echo "DIFFERENT"; fi)"
    # Twelve digits are an account.
    sed -E 's/[0-9]{12}/ACCOUNT/g' "$report" >"$work/report-to-send.txt"
    echo "The report is $work/report-to-send.txt. Read the file, then send it with an issue, also if"
    echo "everything is as documented: no one has run this role on EC2 before."
    exit "$failed"
}

cat <<TEXT
In the region $region of the account of these credentials, the script makes:
  a VPC 10.83.0.0/16 without instances, an internet gateway, a route table, all of name $name
and lets $trailblazer make:
  a prefix list $name-ipv4, and one route in that table
Then the script deletes them. No other object is changed.
TEXT
printf 'Go on? [y/N] '
read -r answer
case $answer in
    y | Y | yes) ;;
    *)
        echo "Nothing was made."
        exit 0
        ;;
esac
trap clean_up EXIT
trap 'failed=1; clean_up' INT TERM

say "Versions"
{ "$trailblazer" --version; aws --version; echo "region $region"; } 2>&1 | tee -a "$report"

say "An empty VPC"
tags="Tags=[{Key=Name,Value=$name},{Key=trailblazer-try,Value=$name}]"
vpc=$(ec2 create-vpc --cidr-block 10.83.0.0/16 \
    --tag-specifications "ResourceType=vpc,$tags" --query Vpc.VpcId)
igw=$(ec2 create-internet-gateway \
    --tag-specifications "ResourceType=internet-gateway,$tags" --query InternetGateway.InternetGatewayId)
ec2 attach-internet-gateway --internet-gateway-id "$igw" --vpc-id "$vpc"
table=$(ec2 create-route-table --vpc-id "$vpc" \
    --tag-specifications "ResourceType=route-table,$tags" --query RouteTable.RouteTableId)
echo "$vpc $igw $table" | tee -a "$report"

cat >"$work/vpc.toml" <<TOML
role = "vpc"

[source]
url = "${TRAILBLAZER_SOURCE:-https://ip-ranges.amazonaws.com/ip-ranges.json}"

[select]
services = ["S3"]
regions  = ["$region"]

[vpc_plane]
region = "$region"
name   = "$name"
tables = ["$table"]

[vpc_plane.target]
ipv4 = "$igw"
TOML

say "Dry run: the plan, and no change"
expect 2 run reconcile --dry-run
prove "the dry run made no list" is_none "$(lists)"

say "First pass"
expect 0 run reconcile
list=$(lists)
prove "there is one list" is_one "$list"
prove "the list has entries" is_many "$(entries)"
prove "the table leads the list to $igw" is_same "$(routes)" "$igw"

say "Second pass: in sync"
expect 0 run reconcile
expect 0 run reconcile --dry-run

say "Drift: somebody removes an entry by hand"
before=$(entries)
version=$(ec2 describe-managed-prefix-lists --prefix-list-ids "$list" --query 'PrefixLists[0].Version')
cidr=$(ec2 get-managed-prefix-list-entries --prefix-list-id "$list" --query 'Entries[0].Cidr')
ec2 modify-managed-prefix-list --prefix-list-id "$list" --prefix-list-name "$name-ipv4" \
    --current-version "$version" --remove-entries "Cidr=$cidr" --query PrefixList.State
for _ in 1 2 3 4 5 6 7 8 9 10; do
    state=$(ec2 describe-managed-prefix-lists --prefix-list-ids "$list" --query 'PrefixLists[0].State')
    case $state in *-in-progress) sleep 2 ;; *) break ;; esac
done
expect 0 run reconcile
prove "the list has all of its entries again" is_same "$(entries)" "$before"

say "What history shows"
expect 0 run history

say "Flush: the route first, then the list"
expect 0 run flush
prove "the table leads no list" is_none "$(routes)"
sleep 5
prove "the list is gone" is_none "$(lists)"
