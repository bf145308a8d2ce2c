//! Selects open flows by their origin. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::ends::Ends;
use super::entry::Tracked;
use super::sockets::{Socket, Sockets};
use crate::types::Mark;

/// `IPPROTO_TCP` (RFC 9293 §3.1, IANA protocol numbers).
const TCP: u8 = 6;

/// The flows to mark.
#[derive(Debug, Default)]
pub(super) struct Chosen<'a> {
    /// Flows known to conntrack.
    pub(super) updates: Vec<&'a Tracked>,
    /// Connections unknown to conntrack.
    pub(super) inserts: Vec<&'a Socket>,
    /// The number of flows opened from outside that carry the mark already.
    pub(super) marked: u32,
}

/// Selects the flows that were opened from outside.
pub(super) fn inbound<'a>(
    tracked: &'a [Tracked],
    sockets: &'a Sockets,
    own: &[IpAddr],
    mark: Mark,
) -> Chosen<'a> {
    let own: BTreeSet<IpAddr> = own
        .iter()
        .copied()
        .filter(|own| !own.is_loopback())
        .collect();
    let outside = |peer: SocketAddr| !peer.ip().is_loopback() && !own.contains(&peer.ip());
    let mut from_outside: BTreeSet<usize> = BTreeSet::new();
    let mut known: HashMap<Ends, usize> = HashMap::new();
    for (index, flow) in tracked.iter().enumerate() {
        // The target is an own address, directly or after translation.
        let to_us =
            own.contains(&flow.original.target.ip()) || own.contains(&flow.reply.source.ip());
        if to_us && outside(flow.original.source) {
            from_outside.insert(index);
        }
        if flow.protocol == TCP {
            // A socket sees the translated ends, as in the reply.
            for ends in [flow.original, flow.reply.reversed()] {
                known.insert(ends, index);
                known.entry(ends.reversed()).or_insert(index);
            }
        }
    }
    let mut chosen = Chosen::default();
    for socket in &sockets.connections {
        let peer = socket.ends.source;
        if !outside(peer) || !sockets.listens(socket.ends.target) {
            continue;
        }
        // Conntrack switched on in the middle of a connection may have swapped the directions:
        // the listening socket is right.
        match known.get(&socket.ends) {
            Some(index) => {
                from_outside.insert(*index);
            }
            None => chosen.inserts.push(socket),
        }
    }
    for flow in from_outside
        .into_iter()
        .filter_map(|index| tracked.get(index))
    {
        // The marks of the two paths serve the byte counters only: the inbound mark replaces them.
        if flow.mark & mark.mask != mark.value {
            chosen.updates.push(flow);
        } else {
            chosen.marked += 1;
        }
    }
    chosen
}

/// Selects the unanswered flows from `sources` to other networks, except `private` ones, whose
/// source is not translated.
pub(super) fn untranslated<'a>(
    tracked: &'a [Tracked],
    sources: &[IpNet],
    private: &[IpNet],
) -> Vec<&'a Tracked> {
    let in_one = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
    let chosen = |flow: &&Tracked| {
        let (source, target) = (flow.original.source, flow.original.target.ip());
        !flow.answered
            && flow.reply.target == source
            && in_one(sources, source.ip())
            && !in_one(sources, target)
            && !in_one(private, target)
    };
    tracked.iter().filter(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        value: 0x3000,
        mask: 0x3000,
    };

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
            ends: ends(remote, local),
            state: 1,
        }
    }

    fn own() -> Vec<IpAddr> {
        ["10.0.0.1", "2001:db8::1", "127.0.0.1", "::1"]
            .map(|text| text.parse().unwrap())
            .to_vec()
    }

    fn listening(connections: Vec<Socket>, listeners: &[&str]) -> Sockets {
        Sockets {
            connections,
            listeners: listeners.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn selects_tracked_flows_opened_from_outside() {
        let inside_out = plain("10.0.0.1:40000", "192.0.2.9:443", 0);
        let outside_in = plain("192.0.2.9:50000", "10.0.0.1:22", 0x4);
        let in_v6 = plain("[2001:db8:9::9]:50000", "[2001:db8::1]:22", 0);
        let marked = plain("192.0.2.9:50001", "10.0.0.1:22", 0x3004);
        let counted = plain("192.0.2.9:50003", "10.0.0.1:23", 0x1000);
        let to_itself = plain("10.0.0.1:50001", "10.0.0.1:22", 0);
        let forwarded = plain("10.9.9.9:50001", "192.0.2.9:22", 0);
        let loopback = plain("127.0.0.1:50001", "127.0.0.1:22", 0);
        // A virtual address in front of the host, translated to an own address.
        let translated = tracked(
            ends("192.0.2.9:50002", "198.51.100.1:80"),
            ends("10.0.0.1:8080", "192.0.2.9:50002"),
            0,
        );
        let flows = [
            inside_out, outside_in, in_v6, marked, counted, to_itself, forwarded, loopback,
            translated,
        ];
        let sockets = Sockets::default();
        let chosen = inbound(&flows, &sockets, &own(), MARK);
        let targets: Vec<_> = chosen
            .updates
            .iter()
            .map(|flow| flow.original.target.to_string())
            .collect();
        assert_eq!(
            targets,
            [
                "10.0.0.1:22",
                "[2001:db8::1]:22",
                "10.0.0.1:23",
                "198.51.100.1:80"
            ]
        );
        assert_eq!(chosen.marked, 1);
        assert!(chosen.inserts.is_empty());
    }

    #[test]
    fn connections_at_a_listening_port_are_inserted_unless_known() {
        let sockets = listening(
            vec![
                socket("192.0.2.9:1", "10.0.0.1:22"),
                socket("192.0.2.9:2", "10.0.0.1:22"),
                socket("192.0.2.9:443", "10.0.0.1:40000"),
                socket("10.0.0.1:5", "10.0.0.1:22"),
                socket("127.0.0.1:5", "127.0.0.1:22"),
                socket("192.0.2.9:3", "10.0.0.1:8080"),
            ],
            &["0.0.0.0:22", "10.0.0.2:8080"],
        );
        let known = [plain("192.0.2.9:2", "10.0.0.1:22", 0)];
        let chosen = inbound(&known, &sockets, &own(), MARK);
        let inserted: Vec<_> = chosen
            .inserts
            .iter()
            .map(|s| s.ends.source.to_string())
            .collect();
        assert_eq!(inserted, ["192.0.2.9:1"]);
        assert_eq!(chosen.updates.len(), 1);
    }

    #[test]
    fn a_flow_with_swapped_directions_is_marked_too() {
        let sockets = listening(vec![socket("192.0.2.9:1", "10.0.0.1:22")], &["[::]:22"]);
        let known = [plain("10.0.0.1:22", "192.0.2.9:1", 0)];
        let chosen = inbound(&known, &sockets, &own(), MARK);
        assert_eq!(chosen.updates.len(), 1);
        assert!(chosen.inserts.is_empty());
    }

    #[test]
    fn a_translated_flow_is_matched_by_the_sockets_ends() {
        let sockets = listening(
            vec![socket("192.0.2.9:1", "10.0.0.1:8080")],
            &["10.0.0.1:8080"],
        );
        let known = [tracked(
            ends("192.0.2.9:1", "198.51.100.1:80"),
            ends("10.0.0.1:8080", "192.0.2.9:1"),
            0,
        )];
        let chosen = inbound(&known, &sockets, &own(), MARK);
        assert_eq!((chosen.updates.len(), chosen.inserts.len()), (1, 0));
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
        let chosen = untranslated(&flows, &nets("10.0.0.0/16"), &nets("172.16.0.0/12"));
        assert_eq!(chosen, [&flows[0]]);
    }
}
