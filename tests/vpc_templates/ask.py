"""Reads the templates for tests/vpc_templates: `stack` makes the CloudFormation stack in moto, without the
vpc role, and prints what the account holds; `hcl` prints the blocks of the Terraform module.

moto has no managed prefix lists in stacks, no associations of addresses, and ignores SourceDestCheck."""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "packaging/aws/cloudformation/trailblazer.yaml"
MODULE = ROOT / "packaging/aws/terraform"


def stack():
    import base64
    import os

    os.environ.update(
        AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1"
    )
    import boto3
    from moto import mock_aws

    with mock_aws():
        ec2 = boto3.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"]
            for cidr in ("10.0.0.0/24", "10.0.1.0/24")
        ]
        image = ec2.describe_images()["Images"][0]["ImageId"]
        values = {
            "VpcId": vpc,
            "PublicSubnetId": subnets[0],
            "PrivateSubnetId": subnets[1],
            "ImageId": image,
        }
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName="trailblazer",
            # moto asks for the ports of all protocols, which EC2 ignores.
            TemplateBody=TEMPLATE.read_text().replace(
                'IpProtocol: "-1"', 'IpProtocol: "-1"\n          FromPort: -1\n          ToPort: -1'
            ),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        resources = cloudformation.list_stack_resources(StackName="trailblazer")["StackResourceSummaries"]
        made = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
        interfaces = ec2.describe_network_interfaces(
            NetworkInterfaceIds=[made["EgressInterface"], made["BulkInterface"]]
        )["NetworkInterfaces"]
        data = ec2.describe_instance_attribute(InstanceId=made["Nat"], Attribute="userData")
        return {
            "status": cloudformation.describe_stacks()["Stacks"][0]["StackStatus"],
            "private_routes": ec2.describe_route_tables(RouteTableIds=[made["PrivateTable"]])[
                "RouteTables"
            ][0]["Routes"],
            "egress_interface": made["EgressInterface"],
            "addresses": sorted(one["PrivateIpAddress"] for one in interfaces),
            "user_data": base64.b64decode(data["UserData"]["Value"]).decode(),
        }


def hcl():
    import hcl2

    blocks = {}
    for file in sorted(MODULE.glob("*.tf")):
        with file.open() as opened:
            for kind, values in hcl2.load(opened).items():
                if isinstance(values, list):
                    blocks.setdefault(kind, []).extend(values)
    return blocks


if __name__ == "__main__":
    answer = hcl() if sys.argv[1] == "hcl" else stack()
    json.dump(answer, sys.stdout, default=str)
