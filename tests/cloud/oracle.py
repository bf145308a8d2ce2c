#!/usr/bin/env python3
"""Drives the double of EC2 with boto3, and compares each answer with AWS's own service model.

    oracle.py URL TABLE VPC IGW EIGW NAT

tests/vpc_oracle.rs starts the double with its sample account and these ids. boto3 signs, retries,
pages and parses; an element that the model doesn't have, a value of another type and a word that no
enumeration has are failures. A filter `tag:double` asks the double for a fault of the same call.
"""

import sys
import xml.etree.ElementTree as ET

import boto3
import botocore.config
import botocore.exceptions as errors

import model

URL, TABLE, VPC, IGW, EIGW, NAT = sys.argv[1:7]
KEYS = {
    "aws_access_key_id": "AKIDORACLE",
    "aws_secret_access_key": "oracle/secret+key",
    "aws_session_token": "oracle-session",
}
# Words that the reference has and the model's enumeration lacks: "For an internet gateway, the state
# is available when attached to a VPC"; the filter vpc-endpoint-state has its words in lower case.
OTHER_WORDS = {
    ("DescribeVpcEndpoints.vpcEndpointSet[].state", "available"),
    ("DescribeInternetGateways.internetGatewaySet[].attachmentSet[].state", "available"),
}
CALLED = set()
COUNTS = {"answers": 0, "elements": 0}


def compare(element, shape, path):
    """Compares an element with its shape."""
    COUNTS["elements"] += 1
    kind = shape.type_name
    if kind == "structure":
        names = {m.serialization.get("name", n): m for n, m in shape.members.items()}
        for child in element:
            name = child.tag.split("}")[1]
            assert name in names, f"{path}: the model has no element {name}"
            compare(child, names[name], f"{path}.{name}")
    elif kind == "list":
        for child in element:
            wanted = shape.member.serialization.get("name", "member")
            name = child.tag.split("}")[1]
            assert name == wanted, f"{path}: {name} instead of {wanted}"
            compare(child, shape.member, f"{path}[]")
    elif kind in ("integer", "long"):
        int(element.text)
    elif kind == "boolean":
        assert element.text in ("true", "false"), f"{path}: {element.text}"
    elif getattr(shape, "enum", None) and (path, element.text) not in OTHER_WORDS:
        assert element.text in shape.enum, f"{path}: {element.text} is no word of the model"


def before_parse(operation_model, response_dict, **_):
    """Compares a whole answer."""
    CALLED.add(operation_model.name)
    if response_dict["status_code"] != 200 or not KNOBS["compare"]:
        return
    COUNTS["answers"] += 1
    root = ET.fromstring(response_dict["body"])
    assert root.tag.split("}")[1] == operation_model.name + "Response", root.tag
    assert root.tag.startswith("{http://ec2.amazonaws.com/doc/2016-11-15/}"), root.tag
    root.remove(next(e for e in root if e.tag.endswith("}requestId")))
    compare(root, operation_model.output_shape or Empty, operation_model.name)


class Boolean:
    """The shape of a truth value."""

    type_name = "boolean"
    serialization = {}


class Empty:
    """The shape of an action without an answer in the model. The API's reference has `return`."""

    type_name = "structure"
    members = {"return": Boolean}


KNOBS = {"compare": True}


def client(attempts):
    """A client with a number of attempts."""
    config = botocore.config.Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        read_timeout=5,
        connect_timeout=5,
    )
    made = boto3.client("ec2", region_name="us-east-1", endpoint_url=URL, config=config, **KEYS)
    made.meta.events.register("before-parse.ec2", before_parse)
    return made


EC2 = client(1)


def refused(code, status, call, **parameters):
    """Expects an error of the API."""
    try:
        call(**parameters)
    except errors.ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert found == (code, status), f"{found} instead of {(code, status)}: {error}"
        assert error.response["Error"]["Message"], code
        assert error.response["ResponseMetadata"]["RequestId"], code
        return
    raise AssertionError(f"no {code}")


def described(list_id):
    """One list."""
    return EC2.describe_managed_prefix_lists(PrefixListIds=[list_id])["PrefixLists"][0]


def lists():
    """Prefix lists: creation, changes, versions, pages, deletion."""
    tags = [{"Key": "trailblazer:owner", "Value": "a <b> & \"c\""}]
    created = EC2.create_managed_prefix_list(
        PrefixListName="oracle",
        AddressFamily="IPv4",
        MaxEntries=300,
        Entries=[{"Cidr": f"10.{n}.0.0/16", "Description": f"n={n} é"} for n in range(100)],
        TagSpecifications=[{"ResourceType": "prefix-list", "Tags": tags}],
    )["PrefixList"]
    assert created["State"] == "create-in-progress", created
    one = created["PrefixListId"]
    assert described(one)["Tags"] == tags
    more = [{"Cidr": f"11.{n}.0.0/16"} for n in range(100)]
    change = {"PrefixListId": one, "CurrentVersion": 1, "AddEntries": more}
    answer = EC2.modify_managed_prefix_list(**change)["PrefixList"]
    assert (answer["State"], answer["Version"]) == ("modify-in-progress", 1), answer
    assert described(one)["Version"] == 2
    refused("PrefixListVersionMismatch", 400, EC2.modify_managed_prefix_list, **change)
    pages = EC2.get_paginator("get_managed_prefix_list_entries")
    pages = list(pages.paginate(PrefixListId=one, PaginationConfig={"PageSize": 30}))
    entries = [entry for page in pages for entry in page["Entries"]]
    assert (len(pages), len(entries)) == (7, 200), (len(pages), len(entries))
    assert {"Cidr": "10.7.0.0/16", "Description": "n=7 é"} in entries
    old = EC2.get_managed_prefix_list_entries(PrefixListId=one, TargetVersion=1)["Entries"]
    assert len(old) == 100, len(old)
    both = {"MaxEntries": 400, "RemoveEntries": [{"Cidr": "11.0.0.0/16"}], "CurrentVersion": 2}
    refused(
        "InvalidParameterCombination",
        400,
        EC2.modify_managed_prefix_list,
        PrefixListId=one,
        **both,
    )
    EC2.restore_managed_prefix_list_version(PrefixListId=one, PreviousVersion=1, CurrentVersion=2)
    assert described(one)["State"] == "restore-complete"
    routed = {"RouteTableId": TABLE, "DestinationPrefixListId": one}
    EC2.create_route(GatewayId=IGW, **routed)
    found = EC2.get_managed_prefix_list_associations(PrefixListId=one)["PrefixListAssociations"]
    assert found == [{"ResourceId": TABLE, "ResourceOwner": "123456789012"}], found
    EC2.delete_managed_prefix_list(PrefixListId=one)
    assert described(one)["State"] == "delete-failed"
    EC2.delete_route(**routed)
    EC2.delete_managed_prefix_list(PrefixListId=one)
    refused("InvalidPrefixListID.NotFound", 400, described, list_id=one)
    aws = EC2.describe_managed_prefix_lists(Filters=[{"Name": "owner-id", "Values": ["AWS"]}])
    assert "Version" not in aws["PrefixLists"][0], aws
    for page in EC2.get_paginator("describe_managed_prefix_lists").paginate():
        assert page["PrefixLists"]


def routes():
    """Routes and tags."""
    v4 = {"RouteTableId": TABLE, "DestinationCidrBlock": "192.0.2.0/24"}
    EC2.create_route(GatewayId=IGW, **v4)
    refused("RouteAlreadyExists", 400, EC2.create_route, GatewayId=IGW, **v4)
    EC2.replace_route(NatGatewayId=NAT, **v4)
    v6 = {"RouteTableId": TABLE, "DestinationIpv6CidrBlock": "2001:db8::/32"}
    EC2.create_route(EgressOnlyInternetGatewayId=EIGW, **v6)
    refused("DryRunOperation", 412, EC2.delete_route, DryRun=True, **v6)
    EC2.create_tags(Resources=[TABLE], Tags=[{"Key": "trailblazer", "Value": "bypass"}])
    filters = [{"Name": "tag:trailblazer", "Values": ["bypass"]}]
    pages = EC2.get_paginator("describe_route_tables").paginate(Filters=filters)
    (table,) = [table for page in pages for table in page["RouteTables"]]
    by = {r.get("DestinationCidrBlock") or r["DestinationIpv6CidrBlock"]: r for r in table["Routes"]}
    assert by["192.0.2.0/24"]["NatGatewayId"] == NAT, by
    assert by["2001:db8::/32"]["EgressOnlyInternetGatewayId"] == EIGW, by
    assert by["10.0.0.0/16"]["GatewayId"] == "local", by
    assert {route["State"] for route in table["Routes"]} == {"active"}, by
    EC2.delete_route(**v4)
    EC2.delete_route(**v6)
    refused("InvalidRoute.NotFound", 400, EC2.delete_route, **v6)
    assert EC2.describe_tags()["Tags"], "the table's tag"
    EC2.delete_tags(Resources=[TABLE], Tags=[{"Key": "trailblazer"}])
    assert not EC2.describe_tags()["Tags"]


def targets():
    """The targets of routes, and what they are attached to."""
    gateways = EC2.describe_internet_gateways(InternetGatewayIds=[IGW])["InternetGateways"]
    assert gateways[0]["Attachments"][0]["VpcId"] == VPC, gateways
    only = EC2.describe_egress_only_internet_gateways(EgressOnlyInternetGatewayIds=[EIGW])
    assert only["EgressOnlyInternetGateways"][0]["Attachments"][0]["State"] == "attached", only
    nat = EC2.describe_nat_gateways(Filter=[{"Name": "vpc-id", "Values": [VPC]}])["NatGateways"]
    assert nat[0]["State"] == "available", nat
    EC2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[NAT])
    interfaces = EC2.describe_network_interfaces()["NetworkInterfaces"]
    assert interfaces[0]["Attachment"]["Status"] == "attached", interfaces
    peerings = EC2.describe_vpc_peering_connections()["VpcPeeringConnections"]
    assert peerings[0]["Status"]["Code"] == "active", peerings
    transit = EC2.describe_transit_gateway_vpc_attachments()["TransitGatewayVpcAttachments"]
    assert (transit[0]["VpcId"], transit[0]["State"]) == (VPC, "available"), transit
    endpoints = EC2.describe_vpc_endpoints()["VpcEndpoints"]
    assert endpoints[0]["VpcEndpointType"] == "GatewayLoadBalancer", endpoints
    vpcs = EC2.describe_vpcs(VpcIds=[VPC])["Vpcs"]
    assert vpcs[0]["CidrBlock"] == "10.0.0.0/16", vpcs
    EC2.get_waiter("vpc_available").wait(VpcIds=[VPC])


def wish(fault):
    """Asks for a fault of the next call of the same client."""
    return {"Filters": [{"Name": "tag:double", "Values": [fault]}]}


def faults():
    """Errors, retries and broken answers."""
    refused("RequestLimitExceeded", 503, EC2.describe_vpcs, **wish("throttle"))
    refused("Unavailable", 503, EC2.describe_vpcs, **wish("unavailable"))
    refused("UnauthorizedOperation", 403, EC2.describe_vpcs, **wish("denied"))
    refused("RequestExpired", 400, EC2.describe_vpcs, **wish("expired"))
    refused("AuthFailure", 401, EC2.describe_vpcs, **wish("unknown"))
    KNOBS["compare"] = False
    for fault, kind in (
        ("dropped", errors.ConnectionClosedError),
        ("truncated", botocore.parsers.ResponseParserError),
        ("half", errors.ConnectionClosedError),
        ("html", errors.ClientError),
    ):
        try:
            EC2.describe_vpcs(**wish(fault))
        except kind as error:
            print(f"{fault}: {type(error).__name__}")
        else:
            raise AssertionError(f"no error after {fault}")
    assert EC2.describe_vpcs(**wish("later"))["Vpcs"] == []
    assert EC2.describe_vpcs()["Vpcs"][0]["VpcId"] == VPC
    KNOBS["compare"] = True
    patient = client(4)
    assert patient.describe_vpcs(**wish("throttle twice"))["Vpcs"] == []
    # The answer of the first attempt is lost; the client token keeps the second from a second list.
    patient.create_managed_prefix_list(PrefixListName="lost", AddressFamily="IPv6", MaxEntries=1)
    named = [{"Name": "prefix-list-name", "Values": ["lost"]}]
    found = EC2.describe_managed_prefix_lists(Filters=named)["PrefixLists"]
    assert len(found) == 1, found


def main():
    """Runs all, and prints how much was compared."""
    lists()
    routes()
    targets()
    faults()
    missing = set(model.ACTIONS) - CALLED
    assert not missing, f"never called: {missing}"
    print(
        f"boto3 {boto3.__version__}: {len(CALLED)} actions, {COUNTS['answers']} answers and"
        f" {COUNTS['elements']} elements as in AWS's model"
    )


if __name__ == "__main__":
    main()
