//! Selects open flows by their origin. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::entry::Tracked;
use super::sockets::{Listeners, Socket};
use crate::types::Mark;

/// The addresses of this host, without loopback addresses.
pub(super) struct OwnAddresses(BTreeSet<IpAddr>);

impl OwnAddresses {
    pub(super) fn new(addresses: &[IpAddr]) -> OwnAddresses {
        let addresses = addresses.iter().copied();
        OwnAddresses(addresses.filter(|own| !own.is_loopback()).collect())
    }

    fn is_outside(&self, peer: SocketAddr) -> bool {
        !peer.ip().is_loopback() && !self.0.contains(&peer.ip())
    }

    /// True if this host opened the flow, or forwards the flow: the target is another machine.
    pub(super) fn leaves(&self, flow: &Tracked) -> bool {
        self.is_outside(flow.original.target) && !self.0.contains(&flow.reply.source.ip())
    }

    /// True if this host opened the connection of a socket.
    pub(super) fn is_opened(&self, socket: &Socket, listeners: &Listeners) -> bool {
        self.is_outside(socket.ends.source) && !listeners.listens(socket.ends.target)
    }

    /// True if a client outside opened the flow to this host: the target is an own address,
    /// directly or after translation.
    pub(super) fn is_opened_from_outside(&self, flow: &Tracked) -> bool {
        let to_us =
            self.0.contains(&flow.original.target.ip()) || self.0.contains(&flow.reply.source.ip());
        to_us && self.is_outside(flow.original.source)
    }

    /// True if a client outside opened the connection. The listening socket is a better witness
    /// than conntrack, which may have swapped the directions.
    pub(super) fn is_accepted(&self, socket: &Socket, listeners: &Listeners) -> bool {
        self.is_outside(socket.ends.source) && listeners.listens(socket.ends.target)
    }
}

fn in_one(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// True for an unanswered flow from `sources` to another network without translation. The source of
/// flows to `private` networks is never translated.
pub(super) fn is_untranslated(flow: &Tracked, sources: &[IpNet], private: &[IpNet]) -> bool {
    let (source, target) = (flow.original.source, flow.original.target.ip());
    !flow.answered
        && flow.reply.target == source
        && in_one(sources, source.ip())
        && !in_one(sources, target)
        && !in_one(private, target)
}

/// True for a flow from `sources` whose answers go to an address outside `kept`: the address of the
/// translation is gone. `mark` is the mark of our paths, which only flows translated by our rules
/// carry.
pub(super) fn is_dead(
    flow: &Tracked,
    mark: Mark,
    sources: &[IpNet],
    kept: &BTreeSet<IpAddr>,
) -> bool {
    let (source, answered_to) = (flow.original.source.ip(), flow.reply.target.ip());
    flow.mark & mark.mask == mark.value
        && answered_to != source
        && in_one(sources, source)
        && !kept.contains(&answered_to)
}

#[cfg(test)]
mod tests {
    use super::super::ends::Ends;
    use super::*;

    const EGRESS: Mark = Mark {
        value: 0x20,
        mask: 0x30,
    };
    /// `IPPROTO_TCP`.
    const TCP: u8 = 6;

    fn ends(source: &str, target: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
        }
    }

    fn tracked(original: Ends, reply: Ends, mark: u32) -> Tracked {
        Tracked {
            protocol: TCP,
            original,
            reply,
            mark,
            answered: false,
            id: None,
            tuple: Vec::new(),
            zone: None,
        }
    }

    fn plain(source: &str, target: &str, mark: u32) -> Tracked {
        let original = ends(source, target);
        tracked(original, original.reversed(), mark)
    }

    fn socket(remote: &str, local: &str) -> Socket {
        Socket {
            protocol: TCP,
            ends: ends(remote, local),
            state: 1,
        }
    }

    fn own() -> OwnAddresses {
        OwnAddresses::new(
            &["10.0.0.1", "2001:db8::1", "127.0.0.1", "::1"].map(|text| text.parse().unwrap()),
        )
    }

    #[test]
    fn selects_tracked_flows_opened_from_outside() {
        let from_outside = [
            plain("192.0.2.9:50000", "10.0.0.1:22", 0x4),
            plain("[2001:db8:9::9]:50000", "[2001:db8::1]:22", 0),
            plain("192.0.2.9:50003", "10.0.0.1:23", 0x10),
            // A virtual address in front of the host, translated to an own address.
            tracked(
                ends("192.0.2.9:50002", "198.51.100.1:80"),
                ends("10.0.0.1:8080", "192.0.2.9:50002"),
                0,
            ),
        ];
        for flow in from_outside {
            assert!(own().is_opened_from_outside(&flow), "{flow:?}");
        }
        let others = [
            plain("10.0.0.1:40000", "192.0.2.9:443", 0),
            plain("10.0.0.1:50001", "10.0.0.1:22", 0),
            plain("10.9.9.9:50001", "192.0.2.9:22", 0),
            plain("127.0.0.1:50001", "127.0.0.1:22", 0),
        ];
        for flow in others {
            assert!(!own().is_opened_from_outside(&flow), "{flow:?}");
        }
    }

    #[test]
    fn selects_connections_at_listening_ports() {
        let listeners = Listeners::at(&["0.0.0.0:22", "10.0.0.2:8080"]);
        let accepted =
            |remote: &str, local: &str| own().is_accepted(&socket(remote, local), &listeners);
        assert!(accepted("192.0.2.9:1", "10.0.0.1:22"));
        assert!(!accepted("192.0.2.9:443", "10.0.0.1:40000"));
        assert!(!accepted("10.0.0.1:5", "10.0.0.1:22"));
        assert!(!accepted("127.0.0.1:5", "127.0.0.1:22"));
        assert!(!accepted("192.0.2.9:3", "10.0.0.1:8080"));
    }

    #[test]
    fn selects_only_translations_of_ours_to_addresses_that_are_gone() {
        let flow = |source: &str, translated: &str, mark| {
            tracked(
                ends(source, "192.0.2.9:443"),
                ends("192.0.2.9:443", translated),
                mark,
            )
        };
        let sources = ["10.0.0.0/16".parse().unwrap()];
        let kept = BTreeSet::from(["198.51.100.21".parse().unwrap()]);
        let dead = |flow: &Tracked| is_dead(flow, EGRESS, &sources, &kept);
        assert!(dead(&flow("10.0.1.11:5", "198.51.100.20:5", 0x20)));
        assert!(dead(&flow("10.0.1.11:5", "198.51.100.20:5", 0x60)));
        for alive in [
            flow("10.0.1.11:5", "198.51.100.21:5", 0x20),
            flow("10.0.1.11:5", "10.0.1.11:5", 0x20),
            flow("10.0.1.11:5", "198.51.100.20:5", 0x30),
            flow("10.0.1.11:5", "198.51.100.20:5", 0),
            flow("172.16.0.1:5", "198.51.100.20:5", 0x20),
        ] {
            assert!(!dead(&alive), "{alive:?}");
        }
    }

    #[test]
    fn selects_only_unreplied_flows_opened_before_nat() {
        let untranslated_one = plain("10.0.1.11:50000", "192.0.2.9:443", 0);
        let answered = Tracked {
            answered: true,
            ..untranslated_one.clone()
        };
        let translated = tracked(
            ends("10.0.1.11:50001", "192.0.2.9:443"),
            ends("192.0.2.9:443", "198.51.100.5:50001"),
            0,
        );
        let private = plain("10.0.1.11:50002", "10.0.9.9:443", 0);
        let peered = plain("10.0.1.11:50003", "172.16.0.9:443", 0);
        let of_another = plain("172.16.0.9:50004", "192.0.2.9:443", 0);
        let flows = [
            untranslated_one,
            answered,
            translated,
            private,
            peered,
            of_another,
        ];
        let nets = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        let (sources, private) = (nets("10.0.0.0/16"), nets("172.16.0.0/12"));
        let chosen: Vec<_> = flows
            .iter()
            .filter(|flow| is_untranslated(flow, &sources, &private))
            .collect();
        assert_eq!(chosen, [&flows[0]]);
    }
}
