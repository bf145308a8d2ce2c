//! The snapshot as Prometheus metrics.

mod catalogue;
mod encode;
mod flows;
mod hops;
mod traffic;

pub use catalogue::CATALOGUE;
pub use encode::{Kind, Metric, encode};
