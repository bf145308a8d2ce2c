//! The deaths of a NAT.

use lab::*;

use crate::packets::delay::Delay;

/// A way to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The forwarding stops: the kernel drops each packet for another machine.
    Process,
    /// Nothing is answered, address resolution neither.
    Silent,
    /// The link to the hosts is down.
    Link,
    /// The firewall drops what is forwarded.
    Dropping,
    /// Address resolution is answered, as by EC2's fabric for a dead instance, and nothing else.
    HalfDead,
    /// The link to the internet is down: the NAT answers with errors of ICMP.
    Uplink,
    /// Each packet leaves two seconds late.
    Slow,
    /// Three of ten packets are lost, in each direction.
    Lossy,
}

pub const ALL: [Death; 8] = [
    Death::Process,
    Death::Silent,
    Death::Link,
    Death::Dropping,
    Death::HalfDead,
    Death::Uplink,
    Death::Slow,
    Death::Lossy,
];

/// The parts of a death that end with the value.
pub struct Wound {
    _delay: Option<Delay>,
}

impl Death {
    /// True if open flows stand still.
    pub fn stops_flows(self) -> bool {
        !matches!(self, Death::Slow | Death::Lossy)
    }

    /// Lets the NAT die; `None` if this kernel cannot.
    pub fn strike(self, nat: &Ns) -> Option<Wound> {
        match self {
            Death::Process => forward(nat, "0"),
            Death::Silent => nat.nft(
                "table inet dead {
                   chain input { type filter hook input priority -300; policy drop; }
                   chain forward { type filter hook forward priority -300; policy drop; }
                 }
                 table arp dead {
                   chain input { type filter hook input priority -300; policy drop; }
                 }",
            ),
            Death::Link => nat.ip(&format!("link set {PRIVATE_LINK} down")).clear(),
            Death::Dropping => nat.nft(
                "table inet dead {
                   chain forward { type filter hook forward priority 0; policy drop; }
                 }",
            ),
            Death::HalfDead => nat.nft(
                "table inet dead {
                   chain input { type filter hook input priority -300; policy drop;
                     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }
                   chain forward { type filter hook forward priority -300; policy drop; }
                 }",
            ),
            Death::Uplink => nat.ip(&format!("link set {PUBLIC_LINK} down")).clear(),
            Death::Slow => {
                return Delay::start(nat).map(|delay| Wound {
                    _delay: Some(delay),
                });
            }
            Death::Lossy => nat.nft(
                "table inet dead {
                   chain forward { type filter hook forward priority -300; policy accept;
                     numgen random mod 10 < 3 drop; }
                 }",
            ),
        }
        Some(Wound { _delay: None })
    }

    /// Undoes the death.
    pub fn heal(self, lab: &Lab, name: &str) {
        let (nat, addresses) = (lab.ns(name), lab.nat(name));
        match self {
            Death::Process => forward(nat, "1"),
            Death::Silent => nat.nft("delete table inet dead\ndelete table arp dead"),
            Death::Dropping | Death::HalfDead | Death::Lossy => nat.nft("delete table inet dead"),
            // The end of the wound.
            Death::Slow => {}
            Death::Link => nat.ip_batch(&format!(
                "link set {PRIVATE_LINK} up\n\
                 addr replace {}/64 dev {PRIVATE_LINK} nodad\n",
                addresses.private6
            )),
            Death::Uplink => nat.ip_batch(&format!(
                "link set {PUBLIC_LINK} up\n\
                 addr replace {}/64 dev {PUBLIC_LINK} nodad\n\
                 addr replace {}/64 dev {PUBLIC_LINK} nodad\n\
                 route replace default via {} dev {PUBLIC_LINK} proto dhcp metric 512\n\
                 route replace default via {ROUTER6} dev {PUBLIC_LINK} proto ra metric 512\n",
                addresses.second6, addresses.egress6, addresses.gateway
            )),
        }
    }
}

fn forward(nat: &Ns, value: &str) {
    nat.sysctl(&[
        ("net/ipv4/ip_forward", value),
        ("net/ipv6/conf/all/forwarding", value),
        // A write to ip_forward resets it (Documentation/networking/ip-sysctl.rst).
        ("net/ipv4/conf/all/rp_filter", "0"),
    ]);
}
