//! The cost of the uplink's bytes at a NAT gateway.

use super::verdict::Step;

/// Bytes through the uplink, in both directions with headers, for each byte of content written to S3.
pub fn uplink_per_written(step: &Step) -> f64 {
    let written = step.writes / 8.0 * step.seconds;
    if written > 0.0 {
        step.uplink_bytes as f64 / written
    } else {
        0.0
    }
}

/// Dollars for a number of GB written to S3.
pub fn dollars(price: f64, written_gb: f64, uplink_per_written: f64) -> f64 {
    price * written_gb * uplink_per_written
}
