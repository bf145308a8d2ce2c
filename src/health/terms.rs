//! The settings of the probes, as thresholds and times.

use std::time::Duration;

use super::group::Group;
use crate::config::ProbeConfig;

/// The thresholds and times of `[probe]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Between two probes of a gateway without traffic.
    pub interval: Duration,
    /// Between two probes of a bypass path without traffic.
    pub bypass_interval: Duration,
    /// Between two rounds while a way is in doubt.
    pub suspect_interval: Duration,
    /// The time limit of a probe.
    pub timeout: Duration,
    /// Failed rounds in a row until a way is down.
    pub fall: u32,
    /// Good rounds in a row until a way that was down answers again.
    pub rise: u32,
    /// The first hold of a way that answers again.
    pub hold: Duration,
    /// The longest hold. Falls within this time double the hold.
    pub hold_limit: Duration,
}

impl From<&ProbeConfig> for Terms {
    fn from(probe: &ProbeConfig) -> Terms {
        Terms {
            interval: probe.interval,
            bypass_interval: probe.bypass_interval,
            suspect_interval: probe.suspect_interval,
            timeout: probe.timeout,
            fall: probe.fall,
            rise: probe.rise,
            hold: probe.hold,
            hold_limit: probe.hold_limit,
        }
    }
}

/// The pace of rounds that can wait, in units of `suspect_interval`.
const PATIENT: u32 = 5;

impl Terms {
    /// The time between two rounds that can wait.
    pub(super) fn patient_interval(&self) -> Duration {
        self.suspect_interval * PATIENT
    }

    /// The time between two probes of a group's ways without traffic.
    pub(super) fn interval_of(&self, group: Group) -> Duration {
        match group {
            Group::Egress(_) => self.interval,
            Group::Bypass(_) => self.bypass_interval,
        }
    }
}
