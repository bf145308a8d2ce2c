//! The VPC's own tables: storage prefixes past the NAT for hosts without an agent.
//!
//! The role has the same source, ranges and guard as the other roles. The kernel's place is taken
//! by a customer-managed prefix list of each family and one route to it in each route table.

pub mod calls;
pub mod ec2;
pub mod objects;
