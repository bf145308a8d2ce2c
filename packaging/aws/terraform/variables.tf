# The VPC.

variable "vpc_id" {
  type = string
}

variable "vpc_cidr" {
  description = "The VPC's CIDR, or the CIDR of the hosts behind the NAT."
  type        = string
}

variable "public_subnet_id" {
  description = "The NAT's subnet, whose default route leads to the internet gateway."
  type        = string
}

variable "public_subnet_gateway" {
  description = "The VPC router's address in the NAT's subnet, the first one of its CIDR."
  type        = string
}

variable "private_subnet_ids" {
  description = "The hosts' subnets, without route tables of their own. Their default route will lead to the NAT instance."
  type        = set(string)
}

# The NAT instance.

variable "image_id" {
  description = "An image with Trailblazer (packaging/ami)."
  type        = string
}

variable "instance_type" {
  type    = string
  default = "c7gn.large"
}

variable "egress_address" {
  description = "A free private address of the NAT's subnet. Partners see its Elastic IP."
  type        = string
}

variable "egress_interface_name" {
  description = "The name of the first interface in the image. Nitro instances have ens5 and ens6."
  type        = string
  default     = "ens5"
}

variable "bulk_address" {
  description = "Another free private address of the NAT's subnet. S3 sees its Elastic IP."
  type        = string
}

variable "bulk_interface_name" {
  description = "The name of the second interface in the image."
  type        = string
  default     = "ens6"
}

variable "regions" {
  description = "The buckets' regions."
  type        = list(string)

  validation {
    condition     = length(var.regions) > 0
    error_message = "Name at least one region."
  }
}

# The VPC's own tables (role = "vpc"). Without a table the NAT has the nat role alone.

variable "bypass_table_ids" {
  description = "Route tables of hosts with public addresses, whose storage traffic goes to the internet gateway."
  type        = list(string)
  default     = []
}

variable "internet_gateway_id" {
  description = "The VPC's internet gateway. Needed with bypass_table_ids."
  type        = string
  default     = ""
}

variable "list_size" {
  description = "The maximum of the prefix list. The list counts with this number in each table's quota."
  type        = number
  default     = 40
}
