//! The snapshot as Prometheus metrics.

mod catalogue;
mod encode;
mod flows;
mod hops;
mod traffic;
mod vpc;

pub use catalogue::CATALOGUE;
pub use encode::{Kind, Metric, encode};
