data "aws_region" "here" {}

data "aws_partition" "here" {}

data "aws_caller_identity" "here" {}

# The list is empty until the first pass, and changes no path until then.
resource "aws_ec2_managed_prefix_list" "s3" {
  count = local.with_vpc_role ? 1 : 0

  name           = "trailblazer-s3-ipv4"
  address_family = "IPv4"
  max_entries    = var.list_size

  tags = { "trailblazer:owner" = "trailblazer-s3" }

  lifecycle {
    # Trailblazer writes the entries and the tags of the document, and lets the list grow.
    ignore_changes = [entry, max_entries, tags, tags_all]
  }
}

# With the routes here, a destruction takes the routes before the list.
resource "aws_route" "s3" {
  for_each = toset(var.bypass_table_ids)

  route_table_id             = each.value
  destination_prefix_list_id = aws_ec2_managed_prefix_list.s3[0].id
  gateway_id                 = var.internet_gateway_id
}

locals {
  arn = "arn:${data.aws_partition.here.partition}:ec2:${data.aws_region.here.name}"
}

# packaging/aws/iam/reconcile.json, for one list and the named tables.
data "aws_iam_policy_document" "vpc" {
  count = local.with_vpc_role ? 1 : 0

  statement {
    sid       = "Look"
    actions   = ["ec2:DescribeManagedPrefixLists", "ec2:DescribeRouteTables"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [data.aws_region.here.name]
    }
  }

  statement {
    sid       = "ReadEntriesOfAllLists"
    actions   = ["ec2:GetManagedPrefixListEntries"]
    resources = ["${local.arn}:*:prefix-list/*"]
  }

  statement {
    sid       = "ChangeOneList"
    actions   = ["ec2:ModifyManagedPrefixList"]
    resources = aws_ec2_managed_prefix_list.s3[*].arn
  }

  statement {
    sid       = "MarkOneListWithTheDocument"
    actions   = ["ec2:CreateTags", "ec2:DeleteTags"]
    resources = aws_ec2_managed_prefix_list.s3[*].arn

    condition {
      test     = "ForAllValues:StringLike"
      variable = "aws:TagKeys"
      values   = ["trailblazer:token", "trailblazer:token:*"]
    }

    condition {
      test     = "Null"
      variable = "aws:TagKeys"
      values   = ["false"]
    }
  }

  statement {
    sid     = "RoutesOfNamedTables"
    actions = ["ec2:CreateRoute", "ec2:ReplaceRoute"]
    resources = [
      for table in var.bypass_table_ids :
      "${local.arn}:${data.aws_caller_identity.here.account_id}:route-table/${table}"
    ]
  }
}

data "aws_iam_policy_document" "instance" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# The nat role signs no request. The vpc role signs with the instance's credentials.
resource "aws_iam_role" "vpc" {
  count = local.with_vpc_role ? 1 : 0

  name_prefix        = "trailblazer-vpc-"
  assume_role_policy = data.aws_iam_policy_document.instance.json
}

resource "aws_iam_role_policy" "vpc" {
  count = local.with_vpc_role ? 1 : 0

  name   = "trailblazer-vpc"
  role   = aws_iam_role.vpc[0].id
  policy = data.aws_iam_policy_document.vpc[0].json
}

resource "aws_iam_instance_profile" "vpc" {
  count = local.with_vpc_role ? 1 : 0

  name_prefix = "trailblazer-vpc-"
  role        = aws_iam_role.vpc[0].name
}
