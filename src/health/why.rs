//! The reasons of the states, in words.

use std::fmt;

use super::silence::READING;

/// The reason of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No verdict yet.
    Unknown,
    /// A probe or a packet of the host's own flows was answered.
    Answers,
    /// Packets went out and none came back.
    Silent { readings: u32 },
    /// A single probe failed.
    Probe,
    /// Most servers that answer through other ways did not answer through this one.
    Rounds { failed: u32 },
    /// Probes were lost whose servers answered through other gateways at the same time.
    Loss { lost: u32, asked: u32 },
    /// As [`Why::Rounds`], just after a change of this host's own: fewer rounds are enough.
    Changed { failed: u32 },
    /// No server answers through any way.
    Dark,
    /// Found down before a restart of the agent.
    Before,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Unknown => write!(f, "not probed yet"),
            Why::Answers => write!(f, "answers"),
            Why::Silent { readings } => {
                let time = READING * *readings;
                write!(f, "packets went out and none came back for {time:?}")
            }
            Why::Probe => write!(f, "a probe was not answered"),
            Why::Rounds { failed } => write!(
                f,
                "{failed} rounds failed in a row: most servers answer through another way only"
            ),
            Why::Changed { failed } => write!(
                f,
                "{failed} rounds failed just after a change of the path: most servers answer through another way only"
            ),
            Why::Loss { lost, asked } => write!(
                f,
                "loses {lost} of {asked} probes: the same servers answer through another gateway"
            ),
            Why::Dark => write!(f, "no server answers through any way"),
            Why::Before => write!(f, "found down before a restart of the agent"),
        }
    }
}
