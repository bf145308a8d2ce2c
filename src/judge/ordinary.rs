//! The ordinary packet: sent to a partner or to storage by a socket without an address and without a
//! mark, or forwarded for such a socket.

use crate::objects::ForeignSelector;

/// `IPPROTO_TCP` (linux/in.h).
pub const PROTOCOL: u8 = 6;
/// The port of HTTPS, which storage and nearly all partners use.
pub const PORT: u16 = 443;
/// The source port, in the middle of the kernel's default of `ip_local_port_range`.
pub const SOURCE_PORT: u16 = 46_883;
/// A range of source ports with more than these is a range of clients.
const PORTS_OF_CLIENTS: u16 = 1000;
/// The user of the socket.
pub const USER: u32 = 0;
/// The routing type of partners, `RTN_UNICAST` (linux/rtnetlink.h).
pub const UNICAST: u32 = 1;
/// The routing type of addresses of this host, `RTN_LOCAL`.
pub const LOCAL: u32 = 2;
/// A user of services and people without a rule of its own, for the firewall's conditions on users.
pub const UNNAMED_USER: u32 = 59_999;
/// A range of users from [`USER`] to this one or above holds the users of people and services: only
/// `nobody` is missing (65534).
const LAST_USER: u32 = 60_000;

/// True if a rule's selector of a protocol, port or user matches the ordinary packet; `None` for
/// other selectors.
pub fn matches_selector(selector: &ForeignSelector) -> Option<bool> {
    match selector {
        ForeignSelector::IpProtocol(protocol) => Some(*protocol == PROTOCOL),
        ForeignSelector::DestinationPorts(first, last) => Some((*first..=*last).contains(&PORT)),
        ForeignSelector::Users(first, last) => Some((*first..=*last).contains(&USER)),
        ForeignSelector::SourcePorts(first, last) => {
            Some((*first..=*last).contains(&SOURCE_PORT) && last - first >= PORTS_OF_CLIENTS)
        }
        // Values that nobody sets by default.
        ForeignSelector::OutputDevice(_) | ForeignSelector::Tos(_) | ForeignSelector::Dscp(_) => {
            Some(false)
        }
        _ => None,
    }
}

/// True if nearly all users are in the range of a rule.
pub fn is_everybody(first: u32, last: u32) -> bool {
    first == USER && last >= LAST_USER
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
            (ForeignSelector::Realms(3), None),
        ] {
            assert_eq!(matches_selector(&selector), expected, "{selector}");
        }
        assert!(is_everybody(0, u32::MAX - 1));
        assert!(!is_everybody(0, 0));
    }
}
