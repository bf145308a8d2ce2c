//! The two ends of a flow.

use std::net::SocketAddr;

/// Both ends of a flow in the direction of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
}

impl Ends {
    pub(super) fn reversed(self) -> Ends {
        Ends {
            source: self.target,
            target: self.source,
        }
    }
}
