//! The VPC's own tables: storage prefixes past the NAT for hosts without an agent.
//!
//! The role has the same source, ranges and guard as the other roles. The kernel's place is taken
//! by a customer-managed prefix list of each family and one route to it in each route table.

pub mod apply;
pub mod calls;
pub mod drift;
pub mod ec2;
pub mod error;
pub mod flush;
pub mod goal;
pub mod ledger;
mod lint;
pub mod look;
pub mod lookup;
pub mod objects;
pub mod observe;
pub mod observed;
pub mod pass;
pub mod plan;
pub mod quota;
mod records;
pub mod refused;
pub mod report;
pub mod routes;
pub mod session;
mod settle;
mod spares;
pub mod step;
pub mod summary;
pub mod tags;
mod verify;
