#!/usr/bin/env python3
"""Sends one signed call to each URL by boto3, and prints the codes of the errors, or ok, in lines.

    signed.py ACCESS_KEY SECRET_KEY URL...
"""

import sys

import boto3
import botocore.config
import botocore.exceptions as errors

for url in sys.argv[3:]:
    client = boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=sys.argv[1],
        aws_secret_access_key=sys.argv[2],
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    try:
        client.describe_vpcs()
        print("ok")
    except errors.ClientError as error:
        print(error.response["Error"]["Code"])
