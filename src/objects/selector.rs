//! Selectors of foreign policy rules. Of our rules only those of the shut state have one.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A selector or modifier of a policy rule (`FRA_*`, linux/fib_rules.h). The order of the variants
/// is the order in which `ip rule` prints them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForeignSelector {
    /// The rule matches packets that its selectors don't match (`FIB_RULE_INVERT`).
    Not,
    From(IpNet),
    To(IpNet),
    Tos(u8),
    OutputDevice(String),
    /// The first and the last user.
    Users(u32, u32),
    /// The IP protocol, such as 6 for TCP.
    IpProtocol(u8),
    /// The first and the last source port.
    SourcePorts(u16, u16),
    /// The first and the last destination port.
    DestinationPorts(u16, u16),
    TunnelId,
    Dscp(u8),
    FlowLabel(u32),
    /// The table of the packet's VRF takes the place of the rule's table.
    VrfTable,
    SuppressInterfaceGroup(u32),
    /// The realms of source and destination, in the upper and the lower 16 bits.
    Realms(u32),
}

impl ForeignSelector {
    /// A prefix of the address, with the length of the rule's header; an address with host bits has
    /// the full length.
    pub fn prefix(address: IpAddr, length: u8) -> IpNet {
        IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
    }

    /// The prefix of destinations, of that selector alone.
    pub fn destination(&self) -> Option<&IpNet> {
        match self {
            ForeignSelector::To(prefix) => Some(prefix),
            _ => None,
        }
    }

    /// True if `ip rule` prints the selector after the table.
    pub fn follows_table(&self) -> bool {
        matches!(
            self,
            ForeignSelector::SuppressInterfaceGroup(_) | ForeignSelector::Realms(_)
        )
    }
}

/// As `ip rule` prints the selector.
impl fmt::Display for ForeignSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForeignSelector::Not => f.write_str("not"),
            ForeignSelector::From(prefix) => write!(f, "from {}", bare_host(prefix)),
            ForeignSelector::To(prefix) => write!(f, "to {}", bare_host(prefix)),
            ForeignSelector::Tos(tos) => write!(f, "tos {tos:#x}"),
            ForeignSelector::OutputDevice(name) => write!(f, "oif {name}"),
            ForeignSelector::Users(first, last) => write!(f, "uidrange {first}-{last}"),
            ForeignSelector::IpProtocol(number) => match protocol_name(*number) {
                Some(name) => write!(f, "ipproto {name}"),
                None => write!(f, "ipproto {number}"),
            },
            ForeignSelector::SourcePorts(first, last) => ports(f, "sport", *first, *last),
            ForeignSelector::DestinationPorts(first, last) => ports(f, "dport", *first, *last),
            ForeignSelector::TunnelId => f.write_str("tun_id"),
            ForeignSelector::Dscp(dscp) => write!(f, "dscp {dscp:#x}"),
            ForeignSelector::FlowLabel(label) => write!(f, "flowlabel {label:#x}"),
            ForeignSelector::VrfTable => f.write_str("lookup [l3mdev-table]"),
            ForeignSelector::SuppressInterfaceGroup(group) => write!(f, "suppress_ifgroup {group}"),
            ForeignSelector::Realms(realms) => match (realms >> 16, realms & 0xffff) {
                (0, destination) => write!(f, "realms {destination}"),
                (source, destination) => write!(f, "realms {source}/{destination}"),
            },
        }
    }
}

/// `ip rule` prints no length after a single address.
fn bare_host(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

fn ports(f: &mut fmt::Formatter<'_>, word: &str, first: u16, last: u16) -> fmt::Result {
    if first == last {
        write!(f, "{word} {first}")
    } else {
        write!(f, "{word} {first}-{last}")
    }
}

/// The name in /etc/protocols, which `ip rule` prints.
fn protocol_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        132 => "sctp",
        _ => return None,
    })
}
