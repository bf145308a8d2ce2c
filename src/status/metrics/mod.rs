//! The snapshot as Prometheus metrics.

mod catalogue;
mod encode;

pub use catalogue::CATALOGUE;
pub use encode::{Kind, Metric, encode};
