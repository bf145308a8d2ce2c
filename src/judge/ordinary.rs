//! The ordinary packet: sent to a partner or to storage by a socket without an address and without a
//! mark, or forwarded for such a socket.

use crate::objects::ForeignSelector;

/// The transport protocol of an ordinary packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Both protocols.
    pub const ALL: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    /// The number in the IP header (`IPPROTO_*`, linux/in.h).
    pub fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

/// The port of HTTPS, which storage and nearly all partners use.
pub const PORT: u16 = 443;
/// The source port, in the middle of the kernel's default of `ip_local_port_range`.
pub const SOURCE_PORT: u16 = 46_883;
/// A range of source ports with more than these is a range of clients.
const PORTS_OF_CLIENTS: u16 = 1000;
/// The routing type of partners, `RTN_UNICAST` (linux/rtnetlink.h).
pub const UNICAST: u32 = 1;
/// The routing type of addresses of this host, `RTN_LOCAL`.
pub const LOCAL: u32 = 2;
/// A user of services and people without a rule of its own, for the firewall's conditions on users.
pub const UNNAMED_USER: u32 = 59_999;
/// The users of services (`SYS_UID_MAX`, login.defs(5)).
pub const SERVICES: (u32, u32) = (0, 999);
/// The users of people (`UID_MAX`, login.defs(5)).
pub const PEOPLE: (u32, u32) = (1000, 60_000);

/// True if a rule's selector of a protocol, port or user matches packets of this protocol and user;
/// `None` for other selectors.
pub fn matches_selector(
    selector: &ForeignSelector,
    transport: Transport,
    user: u32,
) -> Option<bool> {
    match selector {
        ForeignSelector::IpProtocol(number) => Some(*number == transport.number()),
        ForeignSelector::DestinationPorts(first, last) => Some((*first..=*last).contains(&PORT)),
        ForeignSelector::Users(first, last) => Some((*first..=*last).contains(&user)),
        ForeignSelector::SourcePorts(first, last) => {
            Some((*first..=*last).contains(&SOURCE_PORT) && last - first >= PORTS_OF_CLIENTS)
        }
        // Not conditions: a rule gives realms to packets, and refuses answers by some interfaces
        // (`fib4_rule_match`, `fib4_rule_suppress`, net/ipv4/fib_rules.c).
        ForeignSelector::Realms(_) | ForeignSelector::SuppressInterfaceGroup(_) => Some(true),
        ForeignSelector::Dscp(dscp) => Some(*dscp == 0),
        // Values that nobody sets by default.
        ForeignSelector::OutputDevice(_) | ForeignSelector::Tos(_) => Some(false),
        _ => None,
    }
}

/// True if ordinary packets match a rule's selector; `None` for selectors of addresses and the like.
pub fn is_ordinary(selector: &ForeignSelector) -> Option<bool> {
    match selector {
        ForeignSelector::IpProtocol(number) => {
            let mut all = Transport::ALL.iter();
            Some(all.any(|transport| transport.number() == *number))
        }
        ForeignSelector::Users(first, last) => Some(is_everybody(*first, *last)),
        other => matches_selector(other, Transport::Tcp, SERVICES.0),
    }
}

/// True if root, half of the users of services, or half of those of people are in the range of a rule:
/// most services of a server belong to root.
pub fn is_everybody(first: u32, last: u32) -> bool {
    const ROOT: u32 = 0;
    let of_root = (first..=last).contains(&ROOT);
    of_root
        || [SERVICES, PEOPLE].iter().any(|(least, most)| {
            let inside = (last.min(*most) + 1).saturating_sub(first.max(*least));
            inside >= (most - least).div_ceil(2)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_ordinary_packets_match() {
        for (selector, expected) in [
            (ForeignSelector::IpProtocol(6), Some(true)),
            (ForeignSelector::IpProtocol(17), Some(false)),
            (ForeignSelector::DestinationPorts(443, 443), Some(true)),
            (ForeignSelector::DestinationPorts(22, 22), Some(false)),
            (ForeignSelector::SourcePorts(1024, 65_535), Some(true)),
            (ForeignSelector::SourcePorts(443, 443), Some(false)),
            (ForeignSelector::Users(0, 0), Some(true)),
            (ForeignSelector::Users(1000, 1000), Some(false)),
            (
                ForeignSelector::OutputDevice("eth1".to_owned()),
                Some(false),
            ),
            (ForeignSelector::Realms(3), Some(true)),
            (ForeignSelector::SuppressInterfaceGroup(7), Some(true)),
            (ForeignSelector::Dscp(0), Some(true)),
            (ForeignSelector::Dscp(8), Some(false)),
            (ForeignSelector::TunnelId, None),
        ] {
            let found = matches_selector(&selector, Transport::Tcp, 0);
            assert_eq!(found, expected, "{selector}");
        }
        let udp = ForeignSelector::IpProtocol(17);
        assert_eq!(matches_selector(&udp, Transport::Udp, 0), Some(true));
    }

    #[test]
    fn selectors_of_most_programs_are_ordinary() {
        for (selector, expected) in [
            (ForeignSelector::IpProtocol(17), Some(true)),
            (ForeignSelector::IpProtocol(1), Some(false)),
            (ForeignSelector::Users(0, 0), Some(true)),
            (ForeignSelector::Users(33, 33), Some(false)),
            (ForeignSelector::Users(1, u32::MAX - 1), Some(true)),
            (ForeignSelector::DestinationPorts(53, 53), Some(false)),
            (ForeignSelector::Realms(3), Some(true)),
            (ForeignSelector::TunnelId, None),
        ] {
            assert_eq!(is_ordinary(&selector), expected, "{selector}");
        }
    }

    #[test]
    fn half_of_the_users_are_everybody() {
        for (first, last, expected) in [
            (0, u32::MAX - 1, true),
            (1, 999, true),
            (1000, 60_000, true),
            (0, 0, true),
            (33, 33, false),
            (1000, 1999, false),
            // Users of a container without privileges (subuid(5)).
            (100_000, 165_535, false),
        ] {
            assert_eq!(is_everybody(first, last), expected, "{first}-{last}");
        }
    }
}
