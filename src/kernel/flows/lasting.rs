//! Keeps conntrack's entries of idle flows while their sockets are open.
//!
//! A pin is the mark of an entry. An entry that conntrack forgets takes the pin along, and the next
//! packet of the flow would take the path of a new flow.

use std::collections::HashSet;
use std::time::Duration;

use super::PinnedFlow;
use super::conntrack::Conntrack;
use super::ends::Ends;
use super::error::{FlowError, failed};
use super::request::{self, FIVE_DAYS};
use super::sockets::{self, TCP, is_absent};

/// The lifetime of the entry of an open datagram socket. No packet tells conntrack of the end of the
/// socket, so the entry must not stay for days.
const DATAGRAMS: u32 = 600;

/// The kernel's timeouts of entries that an open socket may have.
const TIMEOUTS: &str = "/proc/sys/net/netfilter";
const KINDS: [&str; 5] = [
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_fin_wait",
    "nf_conntrack_tcp_timeout_close_wait",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream",
];

/// The smallest of the kernel's defaults of [`KINDS`] (nf_conntrack_proto_udp.c).
const SHORTEST: u64 = 30;

/// The most flows that one call keeps; later calls keep the others.
const MOST: usize = 16_384;

/// The time in which each idle flow needs a look: a third of the kernel's shortest timeout.
pub fn lasting_interval() -> Duration {
    let seconds = KINDS.into_iter().filter_map(|kind| {
        let text = std::fs::read_to_string(format!("{TIMEOUTS}/{kind}")).ok()?;
        text.trim().parse::<u64>().ok()
    });
    let shortest = seconds.min().unwrap_or(SHORTEST);
    Duration::from_secs(shortest / 3).clamp(Duration::from_secs(1), Duration::from_secs(10))
}

/// The idle flows of one listing.
#[derive(Debug, Default)]
pub struct IdleFlows(HashSet<(u8, Ends)>);

impl IdleFlows {
    /// Adds a flow whose entry has spent half of its lifetime.
    pub fn add(&mut self, flow: &PinnedFlow) {
        let half = Duration::from_secs(u64::from(lifetime(flow.protocol)) / 2);
        if flow.timeout.is_some_and(|left| left < half) && self.0.len() < MOST {
            let ends = Ends {
                source: flow.source,
                target: flow.destination,
            };
            self.0.insert((flow.protocol, ends));
        }
    }

    /// Gives the entries of those flows with an open socket on this host their lifetime back, and
    /// returns their number. A forwarded flow has no socket here, and conntrack's own timeout ends it.
    ///
    /// # Errors
    /// The kernel lists no sockets, or refuses a change.
    pub fn keep(self) -> Result<u32, FlowError> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let mut open = Vec::new();
        let mut found = |socket: sockets::Socket| {
            let outgoing = (socket.protocol, socket.ends.reversed());
            if self.0.contains(&outgoing) {
                open.push(outgoing);
            }
        };
        for listed in [
            sockets::each_connection(&mut found),
            sockets::each_connected_udp(&mut found),
        ] {
            match listed {
                Err(error) if !is_absent(&error) => return Err(failed("list the sockets")(error)),
                _ => {}
            }
        }
        let requests: Vec<_> = open
            .into_iter()
            .map(|(protocol, ends)| request::prolong(protocol, ends, lifetime(protocol)))
            .collect();
        let written = Conntrack::open()?.change(&requests);
        written.failure.map_or(Ok(written.updated), Err)
    }
}

fn lifetime(protocol: u8) -> u32 {
    if protocol == TCP {
        FIVE_DAYS
    } else {
        DATAGRAMS
    }
}
