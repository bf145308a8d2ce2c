resource "aws_security_group" "nat" {
  name        = "trailblazer-nat"
  description = "The NAT instance of Trailblazer"
  vpc_id      = var.vpc_id

  ingress {
    description = "the hosts, to any port of partners"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = [var.vpc_cidr]
  }

  ingress {
    description = "fragmentation needed, from everywhere"
    protocol    = "icmp"
    from_port   = 3
    to_port     = 4
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "storage and partners"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }

  tags = { Name = "trailblazer-nat" }
}

# The first interface has the main table's default route, which partners' traffic takes.
resource "aws_network_interface" "egress" {
  description     = "Trailblazer, partners and the hosts' default route"
  subnet_id       = var.public_subnet_id
  security_groups = [aws_security_group.nat.id]
  private_ips     = [var.egress_address]
  # The instance forwards packets of other addresses.
  source_dest_check = false

  tags = { Name = "trailblazer-egress" }
}

# Storage has an interface of its own, with queues and counters of its own.
resource "aws_network_interface" "bulk" {
  description       = "Trailblazer, storage"
  subnet_id         = var.public_subnet_id
  security_groups   = [aws_security_group.nat.id]
  private_ips       = [var.bulk_address]
  source_dest_check = false

  tags = { Name = "trailblazer-bulk" }
}

# Partners allow this address: no plan may release it.
resource "aws_eip" "egress" {
  domain = "vpc"

  tags = { Name = "trailblazer-egress" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_eip" "bulk" {
  domain = "vpc"

  tags = { Name = "trailblazer-bulk" }
}

resource "aws_eip_association" "egress" {
  allocation_id        = aws_eip.egress.id
  network_interface_id = aws_network_interface.egress.id
}

resource "aws_eip_association" "bulk" {
  allocation_id        = aws_eip.bulk.id
  network_interface_id = aws_network_interface.bulk.id
}

locals {
  # The instance runs the vpc role too if there is a table for it.
  with_vpc_role = length(var.bypass_table_ids) > 0

  nat_config = templatefile("${path.module}/nat.toml.tftpl", {
    regions               = jsonencode(var.regions)
    public_subnet_gateway = var.public_subnet_gateway
    vpc_cidr              = var.vpc_cidr
    egress_interface_name = var.egress_interface_name
    egress_address        = var.egress_address
    bulk_interface_name   = var.bulk_interface_name
    bulk_address          = var.bulk_address
  })

  vpc_config = local.with_vpc_role ? templatefile("${path.module}/vpc.toml.tftpl", {
    regions = jsonencode(var.regions)
    region  = data.aws_region.here.name
    tables  = jsonencode(var.bypass_table_ids)
    lists   = jsonencode(aws_ec2_managed_prefix_list.s3[*].id)
    target  = var.internet_gateway_id
  }) : ""

  files = concat(
    [{ path = "/etc/trailblazer/trailblazer.toml", permissions = "0644", content = local.nat_config }],
    local.with_vpc_role ? [{ path = "/etc/trailblazer/vpc.toml", permissions = "0644", content = local.vpc_config }] : [],
  )

  start = concat(
    [["systemctl", "start", "trailblazer.service"]],
    local.with_vpc_role ? [["systemctl", "enable", "--now", "trailblazer-vpc.timer"]] : [],
  )
}

resource "aws_instance" "nat" {
  ami                  = var.image_id
  instance_type        = var.instance_type
  iam_instance_profile = one(aws_iam_instance_profile.vpc[*].name)

  network_interface {
    device_index         = 0
    network_interface_id = aws_network_interface.egress.id
  }

  network_interface {
    device_index         = 1
    network_interface_id = aws_network_interface.bulk.id
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # cloud-init writes the files before the agent starts (packaging/ami). YAML takes JSON.
  user_data = "#cloud-config\n${jsonencode({
    bootcmd     = [["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]]
    write_files = local.files
    runcmd      = local.start
  })}\n"

  tags = { Name = "trailblazer-nat" }

  # Without its addresses the instance cannot fetch the document.
  depends_on = [aws_eip_association.egress, aws_eip_association.bulk]
}

resource "aws_route_table" "private" {
  vpc_id = var.vpc_id

  tags = { Name = "trailblazer-private" }
}

resource "aws_route" "private_default" {
  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  network_interface_id   = aws_network_interface.egress.id

  depends_on = [aws_instance.nat]
}

# The last change: from here on the subnets' traffic takes the NAT.
resource "aws_route_table_association" "private" {
  for_each = var.private_subnet_ids

  subnet_id      = each.value
  route_table_id = aws_route_table.private.id

  depends_on = [aws_route.private_default]
}
