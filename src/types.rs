//! Newtypes for the numbers and names of all stages.
//!
//! A table id and a mark are both `u32`. Two swapped arguments would compile and send traffic the
//! wrong way, so each number has its own type.

mod pins;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use pins::{FlowCounts, PIN_TABLES, PinMarks, Slot};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// The family of a prefix.
    pub fn of_net(prefix: &IpNet) -> Family {
        match prefix {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }

    /// The default route's prefix: `0.0.0.0/0` or `::/0`.
    pub fn default_prefix(self) -> IpNet {
        match self {
            Family::Ipv4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::default()),
        }
    }

    /// The longest prefix length of a default route in disguise. Routers announce `2000::/3`, the
    /// whole public space of IPv6, as a default; VPN clients split the default into `0.0.0.0/1` and
    /// `128.0.0.0/1` (`::/1` and `8000::/1`), so that the original default can stay. No network of
    /// an administrator is as short: the kernel must not prefer such a route to our tables.
    pub fn default_length(self) -> u8 {
        match self {
            Family::Ipv4 => 1,
            Family::Ipv6 => 3,
        }
    }

    /// True for a default route, plain or in disguise ([`Family::default_length`]).
    pub fn is_default(prefix: &IpNet) -> bool {
        prefix.prefix_len() <= Family::of_net(prefix).default_length()
    }

    /// True for a route that takes ordinary traffic like a default: `0.0.0.0/1` of a VPN, `2000::/3`,
    /// a list of everything except private networks. Registries allocate nothing wider than /8 and
    /// /12, so that no route for somebody's own network is this wide.
    pub fn is_wide(prefix: &IpNet) -> bool {
        match prefix {
            IpNet::V4(v4) => v4.prefix_len() < 8,
            IpNet::V6(v6) => v6.prefix_len() < 12,
        }
    }

    /// The length of an address in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

words!(Family { Ipv4 => "ipv4", Ipv6 => "ipv6" });

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as AWS writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                $name(name.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

pub(crate) use name_type;

name_type!(
    /// An AWS region such as `us-east-1`, as in the `region` field of `ip-ranges.json`.
    Region
);
name_type!(
    /// An AWS service such as `S3`, as in the `service` field of `ip-ranges.json`.
    Service
);

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(crate) use number_type;

number_type!(
    /// `syncToken` of `ip-ranges.json`: the publication time in seconds since the epoch
    /// ("AWS IP address ranges: syntax", VPC User Guide). Later documents have larger tokens.
    SyncToken(u64)
);
number_type!(
    /// A routing table (`RTA_TABLE`, `FRA_TABLE`).
    TableId(u32)
);
number_type!(
    /// The priority of a policy rule (`FRA_PRIORITY`); the kernel tries smaller ones first.
    Priority(u32)
);
number_type!(
    /// The metric of a route (`RTA_PRIORITY`); the kernel prefers smaller ones.
    Metric(u32)
);
number_type!(
    /// The program that installed a route, rule or nexthop (`rtm_protocol`, `FRA_PROTOCOL`,
    /// `nh_protocol`).
    Protocol(u8)
);
number_type!(
    /// The kernel's number of a link. A link recreated under the same name has a new number.
    IfIndex(u32)
);
number_type!(
    /// The destination realm of an IPv4 route (low half of `RTA_FLOW`); IPv6 has none.
    Realm(u16)
);
number_type!(
    /// The kernel's id of a nexthop object (`NHA_ID`).
    NexthopId(u32)
);

/// The addresses of the instance metadata service (AWS: "Instance metadata and user data").
pub const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Priority {
    /// The kernel's own rule for the main table (`fib_default_rules_init`, net/ipv4/fib_rules.c).
    pub const MAIN: Priority = Priority(32_766);
}

impl TableId {
    /// The kernel's `main` table (`RT_TABLE_MAIN`, linux/rtnetlink.h).
    pub const MAIN: TableId = TableId(254);
    /// The kernel's `default` table (`RT_TABLE_DEFAULT`, linux/rtnetlink.h).
    pub const DEFAULT: TableId = TableId(253);
    /// The kernel's `local` table (`RT_TABLE_LOCAL`, linux/rtnetlink.h).
    pub const LOCAL: TableId = TableId(255);

    /// True for a table of the kernel's own, where no config may put a route of ours.
    pub fn is_kernels(self) -> bool {
        [TableId::DEFAULT, TableId::MAIN, TableId::LOCAL].contains(&self)
    }
}

/// A firewall mark: a value, and the mask of its valid bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The value of the bits inside `mask`.
    pub value: u32,
    /// Our bits; other programs own the other bits.
    pub mask: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// The two adjacent mark bits for the path of a flow. Their values are 1 for bypass, 2 for egress
/// and 3 for inbound; 0 is an unmarked flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathMask(pub u32);

impl PathMask {
    fn with(self, index: u32) -> Mark {
        // The mask has exactly two adjacent bits (config validation), so the index, shifted to
        // the lower bit, stays inside the mask.
        Mark {
            value: index << self.0.trailing_zeros(),
            mask: self.0,
        }
    }

    /// The mark of flows on the bypass path.
    pub fn bypass(self) -> Mark {
        self.with(1)
    }

    /// The mark of flows on the egress path.
    pub fn egress(self) -> Mark {
        self.with(2)
    }

    /// The mark of flows opened from outside, which keep their path from before our installation.
    pub fn inbound(self) -> Mark {
        self.with(3)
    }

    /// The mark of forwarded packets with our translation ahead (NAT role): the higher bit. The mark
    /// is only set on packets without any mark, and only compared as a whole.
    pub fn seen(self) -> Mark {
        Mark {
            value: self.0 & !self.packet().value,
            mask: u32::MAX,
        }
    }

    /// The mark of packets that this host sends by itself while its egress is shut before the first
    /// pass (host role): the higher bit, on packets without any bit of ours.
    pub fn shut(self) -> Mark {
        let bit = self.0 & !self.packet().value;
        Mark {
            value: bit,
            mask: bit,
        }
    }

    /// The mark of packets that pass over our rules: those of inbound flows, and those of the
    /// agent's own fetch. Only the lower bit is ever written to a packet, since many programs read
    /// packet marks. A foreign `CONNMARK --restore-mark` without a mask copies the flow's bits to
    /// the packet: egress flows carry the higher bit alone, so they stay on the egress path.
    pub fn packet(self) -> Mark {
        let bit = self.0 & self.0.wrapping_neg();
        Mark {
            value: bit,
            mask: bit,
        }
    }
}

/// One value for each address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerFamily<T> {
    pub ipv4: T,
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    /// Computes the value of each family.
    pub fn from_fn(mut value: impl FnMut(Family) -> T) -> Self {
        PerFamily {
            ipv4: value(Family::Ipv4),
            ipv6: value(Family::Ipv6),
        }
    }

    /// The value of one family.
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// The value of one family, mutable.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

/// The firewall backend that carries our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// nf_tables over netlink; needs no binary.
    Nftables,
    /// iptables and ip6tables, in the installed variant.
    Iptables,
}

words!(BackendKind { Nftables => "nftables", Iptables => "iptables" });

/// True if a number of an IPv4 address or prefix begins with 0. Some readers parse `052.216.0.0` as
/// 52.216.0.0, others, in octal, as 42.216.0.0 (inet_aton(3)).
pub fn has_leading_zero(ipv4: &str) -> bool {
    ipv4.split(['.', '/'])
        .any(|number| number.len() > 1 && number.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_values_stay_inside_the_default_mask() {
        let path = PathMask(0x0030);
        let value = |mark: Mark| (mark.value, mark.mask);
        assert_eq!(value(path.bypass()), (0x10, 0x30));
        assert_eq!(value(path.egress()), (0x20, 0x30));
        assert_eq!(value(path.inbound()), (0x30, 0x30));
        assert_eq!(path.inbound().to_string(), "0x30/0x30");
    }

    #[test]
    fn an_egress_mark_copied_to_a_packet_does_not_pass_over_our_rules() {
        for mask in [0x0030, 0x3000, 0xc000_0000] {
            let path = PathMask(mask);
            let passes = |flow: Mark| flow.value & path.packet().mask == path.packet().value;
            assert!(
                passes(path.inbound()) && !passes(path.egress()),
                "{mask:#x}"
            );
            assert_eq!(path.packet().mask.count_ones(), 1);
        }
    }
}
