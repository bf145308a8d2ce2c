output "egress_ip" {
  description = "Partners see this address."
  value       = aws_eip.egress.public_ip
}

output "bulk_ip" {
  description = "S3 sees this address."
  value       = aws_eip.bulk.public_ip
}

output "nat_instance_id" {
  value = aws_instance.nat.id
}

output "private_route_table_id" {
  value = aws_route_table.private.id
}

output "prefix_list_id" {
  description = "The list of the vpc role, or null."
  value       = one(aws_ec2_managed_prefix_list.s3[*].id)
}
