//! The VPC's own tables: storage prefixes past the NAT for hosts without an agent.
//!
//! The role has the same source, ranges and guard as the other roles. The kernel's place is taken
//! by a customer-managed prefix list of each family and one route to it in each route table.

pub mod calls;
pub mod drift;
pub mod ec2;
pub mod goal;
mod lint;
pub mod objects;
pub mod observed;
pub mod plan;
pub mod quota;
pub mod step;
pub mod tags;
