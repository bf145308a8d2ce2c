//! The model: rates of a server and of the uplink, and the capacity that follows from them.

/// Bytes of a full TCP segment on the wire, as the shaper counts: Ethernet, IPv4 and TCP headers with
/// timestamps, at an MTU of 1500.
pub const SEGMENT_ON_WIRE: f64 = 1514.0;
/// Content of a full TCP segment.
pub const SEGMENT: usize = 1448;
/// Segments of one write to S3.
pub const WRITE_SEGMENTS: usize = 6;
/// The uplink that the scaled uplink stands for, in Mbit/s: the limit of an instance with fewer than 32
/// vCPUs through an internet gateway.
pub const REAL_UPLINK: f64 = 5000.0;

/// The longest wait of a packet in the uplink's queue, in milliseconds.
pub const QUEUE: u32 = 50;
/// The rate of the site's link, as a multiple of the uplink's.
pub const SITE_RATE: f64 = 1.1;

/// The highest rate of a sender that catches up after a delay, as a multiple of its usual rate.
pub const CATCH_UP: f64 = 1.2;

/// The parameters. Rates are in bit/s on the wire, headers included.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Model {
    /// The NAT's uplink, in each direction.
    pub uplink: f64,
    /// A server: reads from customers' sites and writes to S3 together.
    pub server: f64,
    /// The share of S3 in a server's rate.
    pub s3_share: f64,
    /// Dollars per GB through a NAT gateway, in either direction.
    pub price: f64,
}

impl Model {
    /// A server's reads from customers' sites.
    pub fn reads(&self) -> f64 {
        self.server * (1.0 - self.s3_share)
    }

    /// A server's writes to S3.
    pub fn writes(&self) -> f64 {
        self.server * self.s3_share
    }

    /// Servers that the uplink carries with all traffic: the busier direction decides.
    pub fn allowed_with_all(&self) -> f64 {
        self.uplink / self.writes().max(self.reads())
    }

    /// Servers that the uplink carries without the traffic to S3.
    pub fn allowed_with_egress(&self) -> f64 {
        self.uplink / self.reads()
    }

    /// Seconds between two segments that a server reads.
    pub fn read_interval(&self) -> f64 {
        SEGMENT_ON_WIRE * 8.0 / self.reads()
    }

    /// Seconds between two writes of a server.
    pub fn write_interval(&self) -> f64 {
        WRITE_SEGMENTS as f64 * SEGMENT_ON_WIRE * 8.0 / self.writes()
    }

    /// Content of a rate: the rate without headers.
    pub fn content(rate: f64) -> f64 {
        rate * SEGMENT as f64 / SEGMENT_ON_WIRE
    }

    /// The factor from the rates of the model to those of a real NAT.
    pub fn scale(&self) -> f64 {
        REAL_UPLINK * 1e6 / self.uplink
    }

    /// A message about parameters without a sense.
    pub fn check(&self) -> Result<(), String> {
        let positive = [self.uplink, self.server].iter().all(|rate| *rate > 0.0);
        if !positive || self.price < 0.0 {
            return Err("rates must be above 0, and the price must not be negative".to_owned());
        }
        if !(0.01..=0.999).contains(&self.s3_share) {
            return Err("the share of S3 must be between 0.01 and 0.999".to_owned());
        }
        Ok(())
    }
}
