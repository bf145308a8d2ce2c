//! Flows of this host's clients that conntrack knows in the wrong direction. Pure.

use std::collections::HashSet;

use super::ends::Ends;
use super::entry::Tracked;
use super::sockets::{Listeners, TCP, UDP};
use crate::firewall::Ports;

/// The ports of services; the others are for clients (`inet_prot_sock`, include/net/ip.h).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The sockets of this host by which an answer to a client differs from a flow to a server.
pub(super) struct Clients {
    /// `None` while the main table decides about all flows.
    local_ports: Option<Ports>,
    /// `None` if the kernel lists no TCP sockets: any port may be a server's.
    pub(super) listeners: Option<Listeners>,
    /// The connected UDP sockets, in the direction from the peer.
    connected: HashSet<Ends>,
}

impl Clients {
    pub(super) fn new(local_ports: Option<Ports>) -> Clients {
        Clients {
            local_ports,
            listeners: None,
            connected: HashSet::new(),
        }
    }

    fn is_local(&self, port: u16) -> bool {
        self.local_ports.is_some_and(|ports| ports.contains(port))
    }

    /// Adds a connected UDP socket.
    pub(super) fn add_udp(&mut self, ends: Ends) {
        if self.is_local(ends.target.port()) {
            self.connected.insert(ends);
        }
    }

    /// True if the flow began with an answer to a client of this host, as far as conntrack knows. The
    /// rules for new flows decide by the same signs (`desired::inbound`). Behind a translated port is
    /// a server.
    pub(super) fn are_answered_by(&self, flow: &Tracked) -> bool {
        let local = flow.original.target;
        if local != flow.reply.source || !self.is_local(local.port()) {
            return false;
        }
        match flow.protocol {
            TCP => {
                let listeners = self.listeners.as_ref();
                listeners.is_some_and(|listeners| !listeners.listens(local))
            }
            UDP => {
                flow.original.source.port() < FIRST_UNPRIVILEGED
                    || self.connected.contains(&flow.original)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, target: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
        }
    }

    fn flow(protocol: u8, source: &str, target: &str) -> Tracked {
        let original = ends(source, target);
        Tracked {
            protocol,
            original,
            reply: original.reversed(),
            mark: 0,
            answered: true,
            id: None,
            tuple: Vec::new(),
            zone: None,
        }
    }

    #[test]
    fn an_answer_goes_to_a_local_port_without_a_server() {
        let mut clients = Clients::new(Some(Ports::LOCAL));
        clients.listeners = Some(Listeners::at(&["0.0.0.0:50000"]));
        clients.add_udp(ends("192.0.2.9:4000", "10.0.0.1:40000"));
        let answered =
            |protocol, source, target| clients.are_answered_by(&flow(protocol, source, target));
        assert!(answered(TCP, "192.0.2.9:443", "10.0.0.1:40000"));
        assert!(answered(UDP, "192.0.2.9:53", "10.0.0.1:40001"));
        assert!(answered(UDP, "192.0.2.9:4000", "10.0.0.1:40000"));
        assert!(!answered(TCP, "192.0.2.9:443", "10.0.0.1:22"));
        assert!(!answered(TCP, "192.0.2.9:443", "10.0.0.1:50000"));
        assert!(!answered(UDP, "192.0.2.9:4001", "10.0.0.1:40000"));
        assert!(!answered(UDP, "192.0.2.9:53", "10.0.0.1:53"));
    }

    #[test]
    fn a_translated_port_and_one_without_a_listing_belong_to_a_server() {
        let mut clients = Clients::new(Some(Ports::LOCAL));
        let unlisted = flow(TCP, "192.0.2.9:443", "10.0.0.1:40000");
        assert!(!clients.are_answered_by(&unlisted));
        clients.listeners = Some(Listeners::at(&[]));
        let published = Tracked {
            reply: ends("172.17.0.2:80", "192.0.2.9:50000"),
            ..flow(TCP, "192.0.2.9:50000", "10.0.0.1:40080")
        };
        assert!(!clients.are_answered_by(&published));
    }
}
