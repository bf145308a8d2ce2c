//! Every name and address of the lab, both families, in one place.
//!
//! ```text
//!                     s3           partner        outside (operator, document mirror)
//!                      \              |              /
//!   peer 10.8/16 ───── vpc: router, internet gateway, metadata, resolver
//!                      |        |      \        |      \
//!                    (priv)   pub    [bulk]    pub    [bulk]
//!        10.0.1.0/24   ├── nat1 ┘──────┘         │       │
//!                      ├── nat2 ─────────────────┘───────┘
//!                      ├── host1
//!                      └── host2
//! ```
//!
//! Hosts have the main table of an AWS subnet (DHCP and router advertisements): a default via the
//! VPC router. The edge translates their IPv4 address one to one and routes IPv6 unchanged.
//! Addresses here come from documentation or unique-local space only where AWS uses such space too,
//! so that no special rule for documentation space hides a fault.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[allow(clippy::too_many_arguments)]
const fn v6(a: u16, b: u16, c: u16, d: u16, e: u16, f: u16, g: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// The link in the private subnet: hosts, NAT instances, and the bridge in `vpc`.
pub const PRIVATE_LINK: &str = "priv";
/// A NAT instance's link to the internet gateway.
pub const PUBLIC_LINK: &str = "pub";
/// A NAT instance's second link to the internet gateway, in `NatLayout::BulkInterface`.
pub const BULK_LINK: &str = "bulk";

/// The VPC's CIDRs.
pub const VPC4: &str = "10.0.0.0/16";
/// The VPC's IPv6 CIDR.
pub const VPC6: &str = "2600:1f18:1000::/56";
/// The private subnet.
pub const SUBNET4: &str = "10.0.1.0/24";
/// The private subnet's IPv6 CIDR.
pub const SUBNET6: &str = "2600:1f18:1000:1::/64";

/// The VPC router in the private subnet.
pub const ROUTER: IpAddr = v4(10, 0, 1, 1);
/// The VPC router's link-local address on every link: as in AWS, IPv6 defaults go there.
pub const ROUTER6: IpAddr = v6(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The VPC router's global address in the private subnet.
pub const ROUTER6_GLOBAL: IpAddr = v6(0x2600, 0x1f18, 0x1000, 1, 0, 0, 0, 1);

pub const HOST1: IpAddr = v4(10, 0, 1, 11);
/// `host1`, IPv6: also the source address seen by servers.
pub const HOST1_6: IpAddr = v6(0x2600, 0x1f18, 0x1000, 1, 0, 0, 0, 0x11);
/// The source address of `host1` seen by servers on the path without NAT.
pub const HOST1_PUBLIC: IpAddr = v4(203, 0, 113, 11);
pub const HOST2: IpAddr = v4(10, 0, 1, 12);
/// `host2`, IPv6.
pub const HOST2_6: IpAddr = v6(0x2600, 0x1f18, 0x1000, 1, 0, 0, 0, 0x12);
/// The source address of `host2` seen by servers on the path without NAT.
pub const HOST2_PUBLIC: IpAddr = v4(203, 0, 113, 12);

/// The first host on the route to S3, unless a test adds prefixes: us-east-1, in 52.216.0.0/15.
pub const S3: IpAddr = v4(52, 216, 10, 10);
/// In 2600:1fa0:8000::/39 of us-east-1.
pub const S3_6: IpAddr = v6(0x2600, 0x1fa0, 0x8000, 0, 0, 0, 0, 0x10);
/// In 54.231.0.0/16 of us-east-1.
pub const S3_SECOND: IpAddr = v4(54, 231, 10, 10);
/// In 2600:1ff8:8000::/40 of us-east-1.
pub const S3_SECOND6: IpAddr = v6(0x2600, 0x1ff8, 0x8000, 0, 0, 0, 0, 0x10);
/// In 52.218.0.0/17 of eu-west-1: S3, but of another region.
pub const S3_ELSEWHERE: IpAddr = v4(52, 218, 10, 10);
/// The prefixes of `s3` at the start. `Lab::serve_s3` adds others.
pub const S3_PREFIXES: &[&str] = &[
    "52.216.0.0/15",
    "54.231.0.0/16",
    "3.5.0.0/19",
    "16.182.0.0/16",
    "52.218.0.0/17",
    "2600:1fa0:8000::/39",
    "2600:1ff8:8000::/40",
];

/// The partner's server: accepts only egress addresses.
pub const PARTNER: IpAddr = v4(93, 184, 216, 34);
/// The partner, IPv6.
pub const PARTNER6: IpAddr = v6(0x2606, 0x2800, 0x220, 1, 0, 0, 0, 0x34);

/// An operator's machine in the internet (namespace `outside`).
pub const OPERATOR: IpAddr = v4(81, 2, 69, 160);
/// The operator's machine, IPv6.
pub const OPERATOR6: IpAddr = v6(0x2a01, 0x4f8, 0xc0c, 1, 0, 0, 0, 0x66);
/// Where `ip-ranges.json` is served (namespace `outside`), port 80.
pub const MIRROR: IpAddr = v4(18, 165, 83, 10);
/// Where `ip-ranges.json` is served, IPv6.
pub const MIRROR6: IpAddr = v6(0x2600, 0x9000, 0x2000, 0, 0, 0, 0, 0x10);

/// A machine in a peered private network, reached via the VPC router and never translated.
pub const PEER: IpAddr = v4(10, 8, 0, 10);
/// The peered machine, IPv6.
pub const PEER6: IpAddr = v6(0xfd08, 8, 0, 0, 0, 0, 0, 0x10);

/// The instance metadata service ("Use the Instance Metadata Service", EC2 User Guide).
pub const IMDS: IpAddr = v4(169, 254, 169, 254);
/// The instance metadata service, IPv6.
pub const IMDS6: IpAddr = v6(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// The VPC's resolver ("DNS attributes for your VPC", VPC User Guide); here a UDP echo of the peer.
pub const RESOLVER: IpAddr = v4(169, 254, 169, 253);
/// The VPC's resolver, IPv6.
pub const RESOLVER6: IpAddr = v6(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
/// The VPC's resolver under the address "VPC plus two".
pub const RESOLVER_IN_VPC: IpAddr = v4(10, 0, 0, 2);

/// The port of every line server (see `server`).
pub const PORT: u16 = 443;
/// The port of the resolvers.
pub const DNS_PORT: u16 = 53;

/// The addresses of one NAT instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatAddresses {
    /// In the private subnet: the hosts' egress gateway.
    pub private: IpAddr,
    /// In the private subnet, IPv6.
    pub private6: IpAddr,
    /// The egress address configured on the instance.
    pub egress: IpAddr,
    /// The egress address seen by partners; differs only in `NatLayout::OneInterface`.
    pub egress_public: IpAddr,
    /// The IPv6 egress address.
    pub egress6: IpAddr,
    /// A second address: another egress address or the bulk address, as the test configures.
    pub second: IpAddr,
    /// The second address seen by servers.
    pub second_public: IpAddr,
    /// The second address, IPv6.
    pub second6: IpAddr,
    /// The gateway of the egress path.
    pub gateway: IpAddr,
    /// The gateway of the second address: the same, except in `NatLayout::BulkInterface`.
    pub second_gateway: IpAddr,
}

/// How a NAT instance is connected. In every layout the partner accepts only the `egress*` pair at
/// the start, and the main table's default goes via `gateway`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatLayout {
    /// `priv` and `pub`; both addresses on `pub`, the public ones themselves.
    #[default]
    TwoInterfaces,
    /// `priv`, `pub` with the egress address, `bulk` with the second address and its own gateway.
    BulkInterface,
    /// Only `priv`, with one gateway: private, egress and second address in the subnet, translated
    /// one to one at the edge (an instance with Elastic IPs).
    OneInterface,
}

impl NatLayout {
    /// The addresses of `nat1` (1) to `nat7` (7) in this layout.
    pub fn addresses(self, instance: u8) -> NatAddresses {
        let step = instance - 1;
        let wide = u16::from(step);
        let public = |low: u8| v4(198, 51, 100, low + 8 * step);
        let bulk = v4(198, 51, 100, 133 + 8 * step);
        let subnet6 = |subnet: u16, low: u16| v6(0x2600, 0x1f18, 0x1000, subnet, 0, 0, 0, low);
        let private = v4(10, 0, 1, 10 + 10 * step);
        let private6 = subnet6(1, 0x10 + 0x10 * wide);
        match self {
            NatLayout::TwoInterfaces => NatAddresses {
                private,
                private6,
                egress: public(5),
                egress_public: public(5),
                egress6: subnet6(0xa1 + wide, 5),
                second: public(6),
                second_public: public(6),
                second6: subnet6(0xa1 + wide, 6),
                gateway: public(1),
                second_gateway: public(1),
            },
            NatLayout::BulkInterface => NatAddresses {
                private,
                private6,
                egress: public(5),
                egress_public: public(5),
                egress6: subnet6(0xa1 + wide, 5),
                second: bulk,
                second_public: bulk,
                second6: subnet6(0xb1 + wide, 5),
                gateway: public(1),
                second_gateway: v4(198, 51, 100, 129 + 8 * step),
            },
            NatLayout::OneInterface => NatAddresses {
                private,
                private6,
                egress: v4(10, 0, 1, 15 + 10 * step),
                egress_public: public(5),
                egress6: subnet6(1, 0x15 + 0x10 * wide),
                second: v4(10, 0, 1, 16 + 10 * step),
                second_public: public(6),
                second6: subnet6(1, 0x16 + 0x10 * wide),
                gateway: ROUTER,
                second_gateway: ROUTER,
            },
        }
    }
}
