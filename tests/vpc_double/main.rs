//! The double of EC2 itself: each rule that a test of the VPC plane relies on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contract;
mod faults;
mod http;
mod lists;
mod routes;
mod versions;
mod world;
