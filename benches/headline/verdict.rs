//! The definition of a saturated NAT, and the capacity that follows. Pure functions of figures.

/// Goodput below this share of the demand is saturation.
pub const LEAST_GOODPUT: f64 = 0.95;
/// More drops than this share of the uplink's packets are saturation.
pub const MOST_DROPS: f64 = 0.001;
/// After this many saturated numbers of servers in a row a series ends.
pub const ENOUGH: usize = 4;

/// A load generator that is later than this, in milliseconds, makes saturation doubtful.
pub const LATE: f64 = 10.0;
/// Repetitions of a doubtful measurement.
pub const REPETITIONS: u32 = 3;

/// The figures of one number of servers. Rates are in bit/s of content.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Step {
    pub servers: usize,
    /// Seconds of the measurement.
    pub seconds: f64,
    /// Reads from customers' sites: wanted, and received by the servers.
    pub reads_demand: f64,
    pub reads: f64,
    /// Writes to S3: wanted, and received by S3.
    pub writes_demand: f64,
    pub writes: f64,
    /// Packets and bytes that the uplink has carried, both directions, headers included.
    pub uplink_packets: u64,
    pub uplink_bytes: u64,
    /// Packets that the uplink's queues have dropped, both directions.
    pub drops: u64,
    /// Connections begun, and those refused, timed out or broken.
    pub connections: u64,
    pub failed: u64,
    /// Milliseconds from the first SYN to the established connection.
    pub connect_median: f64,
    pub connect_p99: f64,
    /// Milliseconds by which the load generator was late, at the 99th percentile.
    pub late_p99: f64,
    /// Repetitions because the load generator was late.
    pub repeated: u32,
}

impl Step {
    /// The goodput as a share of the demand: reads or writes, whichever is lower.
    pub fn goodput(&self) -> f64 {
        let share = |got: f64, wanted: f64| if wanted > 0.0 { got / wanted } else { 1.0 };
        share(self.reads, self.reads_demand).min(share(self.writes, self.writes_demand))
    }

    /// Drops as a share of the packets that came to the uplink.
    pub fn drop_share(&self) -> f64 {
        let all = self.uplink_packets + self.drops;
        if all == 0 {
            0.0
        } else {
            self.drops as f64 / all as f64
        }
    }

    /// The definition.
    pub fn saturated(&self) -> bool {
        self.goodput() < LEAST_GOODPUT || self.drop_share() > MOST_DROPS
    }
}

/// The largest number of servers before the first saturated number; 0 without any.
pub fn capacity(steps: &[Step]) -> usize {
    let good = steps.iter().take_while(|step| !step.saturated());
    good.map(|step| step.servers).max().unwrap_or(0)
}

/// True if a series is far beyond saturation, and more servers show nothing new.
pub fn far_beyond(steps: &[Step]) -> bool {
    steps.len() >= ENOUGH && steps[steps.len() - ENOUGH..].iter().all(Step::saturated)
}

/// A percentile (share of 1) by the nearest rank; 0 without samples.
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A promise with its figure.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Bound {
    pub holds: bool,
    pub what: String,
    pub figure: String,
}

impl Bound {
    /// The line of the terminal and of the page.
    pub fn text(&self) -> String {
        let verdict = if self.holds { "PASS" } else { "FAIL" };
        format!("{verdict}  {}: {}", self.what, self.figure)
    }
}
