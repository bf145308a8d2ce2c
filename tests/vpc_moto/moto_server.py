"""An account of EC2 in moto behind HTTP, for tests/vpc_moto. moto verifies signatures and the actions of
policies. Prints the URL, then answers each line of JSON on standard input by one line:

    {"do": "make"}                      a fresh VPC; the ids, and the keys of a user without any policy
    {"do": "allow", "policy": {…}}      the user's only policy
    {"do": "look"}                      the routes of the table, and the lists with their prefixes

The end of standard input ends the server."""

import json
import os
import sys
import threading

os.environ.update(
    AWS_ACCESS_KEY_ID="operator", AWS_SECRET_ACCESS_KEY="operator", AWS_DEFAULT_REGION="us-east-1"
)

import boto3
import moto.settings
import werkzeug.serving
from moto.core.authorization import ActionAuthenticatorMixin
from moto.moto_api._internal.models import moto_api_backend
from moto.server import DomainDispatcherApplication, create_backend_app

USER = "trailblazer"


class Quiet(werkzeug.serving.WSGIRequestHandler):
    def log(self, *_):
        pass


class Account:
    def __init__(self, url):
        self.ec2 = boto3.client("ec2", endpoint_url=url)
        self.iam = boto3.client("iam", endpoint_url=url)

    def make(self):
        moto_api_backend.reset()
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        igw = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=igw, VpcId=vpc)
        self.table = self.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        self.ec2.create_tags(
            Resources=[self.table], Tags=[{"Key": "trailblazer", "Value": "bypass"}]
        )
        self.iam.create_user(UserName=USER)
        key = self.iam.create_access_key(UserName=USER)["AccessKey"]
        return {
            "igw": igw,
            "table": self.table,
            "access": key["AccessKeyId"],
            "secret": key["SecretAccessKey"],
        }

    def allow(self, policy):
        self.iam.put_user_policy(
            UserName=USER, PolicyName="policy", PolicyDocument=json.dumps(policy)
        )
        return {}

    def look(self):
        table = self.ec2.describe_route_tables(RouteTableIds=[self.table])["RouteTables"][0]
        routes = {}
        for route in table["Routes"]:
            to = route.get("DestinationCidrBlock") or route.get("DestinationPrefixListId")
            routes[to] = route.get("GatewayId")
        lists = {}
        for found in self.ec2.describe_managed_prefix_lists()["PrefixLists"]:
            if found["OwnerId"] == "AWS" or found["State"] == "delete-complete":
                continue
            entries = self.ec2.get_managed_prefix_list_entries(PrefixListId=found["PrefixListId"])
            lists[found["PrefixListId"]] = [entry["Cidr"] for entry in entries["Entries"]]
        return {"routes": routes, "lists": lists}


def main():
    application = DomainDispatcherApplication(create_backend_app)
    server = werkzeug.serving.make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.port}"
    account = Account(url)
    print(json.dumps({"url": url}), flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        # The operator's own calls need no permission; those of the user do.
        moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")
        answer = getattr(account, words.pop("do"))(**words)
        moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        ActionAuthenticatorMixin.request_count = 0
        print(json.dumps(answer), flush=True)


main()
