//! The snapshot as Prometheus metrics.

mod catalogue;
mod encode;

pub use catalogue::{CATALOGUE, Kind, Metric};
pub use encode::encode;
