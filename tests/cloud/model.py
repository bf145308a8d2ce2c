#!/usr/bin/env python3
"""The parameters of the double's actions, from AWS's own service model (botocore).

    model.py          prints the table
    model.py FILE     compares the table with FILE; the exit code is 1 if both differ

The double checks each request against tests/cloud/src/model.txt, the output of this script. A line
without indentation is an action. Each other line is a parameter: its key in the request with N for
an index, its type, `required` for a required member, and the bounds of its value or length. A
parameter of the type `list` or `structure` is never sent itself: its line holds the bounds and
`required`.
"""

import gzip
import json
import os
import sys

import botocore

ACTIONS = """
CreateManagedPrefixList CreateRoute CreateTags DeleteManagedPrefixList DeleteRoute DeleteTags
DescribeEgressOnlyInternetGateways DescribeInternetGateways DescribeManagedPrefixLists
DescribeNatGateways DescribeNetworkInterfaces DescribeRouteTables DescribeTags
DescribeTransitGatewayVpcAttachments DescribeVpcEndpoints DescribeVpcPeeringConnections
DescribeVpcs GetManagedPrefixListAssociations GetManagedPrefixListEntries
ModifyManagedPrefixList ReplaceRoute RestoreManagedPrefixListVersion
""".split()


def load():
    """The service model of EC2, 2016-11-15."""
    home = os.path.dirname(botocore.__file__)
    with gzip.open(os.path.join(home, "data/ec2/2016-11-15/service-2.json.gz")) as file:
        return json.load(file)


def key(name, member):
    """The key of a member in a request: the rule of botocore's serializer for the protocol ec2."""
    if "queryName" in member:
        return member["queryName"]
    if "locationName" in member:
        location = member["locationName"]
        return location[0].upper() + location[1:]
    return name


def walk(shapes, shape, path, required, lines):
    """Appends the lines of one shape and of its members."""
    spec = shapes[shape]
    words = [spec["type"]]
    if required:
        words.append("required")
    words += [f"{bound}={spec[bound]}" for bound in ("min", "max") if bound in spec]
    lines.append(f"  {path} {' '.join(words)}")
    if spec["type"] == "structure":
        members(shapes, shape, path + ".", lines)
    elif spec["type"] == "list":
        walk(shapes, spec["member"]["shape"], path + ".N", False, lines)


def members(shapes, shape, prefix, lines):
    """Appends the lines of a structure's members."""
    spec = shapes[shape]
    for name, member in sorted(spec["members"].items()):
        required = name in spec.get("required", [])
        walk(shapes, member["shape"], prefix + key(name, member), required, lines)


def table():
    """The whole table."""
    model = load()
    lines = []
    for action in ACTIONS:
        lines.append(action)
        members(model["shapes"], model["operations"][action]["input"]["shape"], "", lines)
    return "\n".join(lines) + "\n"


def main():
    """Prints the table, or compares it with a file."""
    made = table()
    if len(sys.argv) == 1:
        print(made, end="")
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        if file.read() != made:
            sys.exit(f"{sys.argv[1]} differs from the model of botocore {botocore.__version__}")


if __name__ == "__main__":
    main()
