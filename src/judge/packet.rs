//! The questions to the kernel's routing decision, and its answers.

use std::net::IpAddr;

use super::ordinary::{SERVICES, Transport};
use crate::objects::Route;
use crate::types::IfIndex;

/// The packet of a route look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub destination: IpAddr,
    /// Set for forwarded packets and for sockets with an address of their own.
    pub source: Option<IpAddr>,
    /// The incoming interface; set for forwarded packets.
    pub input: Option<IfIndex>,
    pub mark: u32,
    pub transport: Transport,
    /// The user of the socket; without a meaning for forwarded packets.
    pub user: u32,
}

impl Lookup {
    /// A TCP packet from a socket of a service, without an address of its own.
    pub fn from_socket(destination: IpAddr) -> Lookup {
        Lookup {
            destination,
            source: None,
            input: None,
            mark: 0,
            transport: Transport::Tcp,
            user: SERVICES.0,
        }
    }
}

/// A next hop for one destination, learned from an ICMP redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Redirect {
    pub destination: IpAddr,
    pub gateway: IpAddr,
}

/// The kernel's routing decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteDecision {
    Route(Route),
    /// `unreachable` and the like: the errno as the application gets it.
    Errno(i32),
}
