//! The ways to connect and configure a NAT instance.

use std::net::IpAddr;

use super::{Firewall, Machine};
use lab::*;

/// The private networks behind the instance.
pub const SOURCES: &str = "sources = [\"10.0.0.0/16\", \"2600:1f18:1000:1::/64\"]\n";

/// A way to connect and configure an instance.
pub struct Case {
    /// The network of the instance.
    pub layout: NatLayout,
    pub firewall: Firewall,
    /// The text after `sources` in `[nat]`, and further sections.
    pub settings: fn(&NatAddresses) -> String,
    /// The address of `host1` as seen by storage, both families.
    pub bypass: fn(&NatAddresses) -> [IpAddr; 2],
}

impl Case {
    /// The instance.
    pub fn machine<'a>(&self, lab: &'a Lab) -> Machine<'a> {
        let settings = format!("{SOURCES}{}", (self.settings)(&lab.nat1));
        Machine::new(lab, "nat1", self.firewall, &settings)
    }
}

/// The instance's fixed addresses, as a line of `[nat]`.
pub fn egress_line(nat: &NatAddresses) -> String {
    format!(
        "egress_addresses = [\"{}\", \"{}\"]\n",
        nat.egress, nat.egress6
    )
}

/// The instance's other addresses, as seen from outside.
pub fn second(nat: &NatAddresses) -> [IpAddr; 2] {
    [nat.second_public, nat.second6]
}

/// A bulk interface with a separate gateway, and an address by masquerading.
pub fn bulk_interface(firewall: Firewall) -> Case {
    Case {
        layout: NatLayout::BulkInterface,
        firewall,
        settings: |nat| format!("{}[bypass]\ninterface = \"bulk\"\n", egress_line(nat)),
        bypass: second,
    }
}

/// One interface to the internet with one gateway: only the destination distinguishes the paths.
pub fn one_gateway(layout: NatLayout, firewall: Firewall) -> Case {
    Case {
        layout,
        firewall,
        settings: |nat| {
            format!(
                "{}bypass = [\"{}\", \"{}\"]\n",
                egress_line(nat),
                nat.second,
                nat.second6
            )
        },
        bypass: second,
    }
}

/// Two gateways on one interface: nftables matches the next hop, iptables cannot.
pub fn two_gateways(firewall: Firewall) -> Case {
    Case {
        layout: NatLayout::TwoInterfaces,
        firewall,
        settings: |nat| {
            format!(
                "{}bypass = [\"{}\", \"{}\"]\n[bypass]\ninterface = \"pub\"\ngateway = [\"198.51.100.2\", \"fe80::1:2\"]\n",
                egress_line(nat),
                nat.second,
                nat.second6
            )
        },
        bypass: second,
    }
}

/// A lab whose hosts use `nat1`. The administrator translates as before Trailblazer, and admits
/// clients outside to `host1`.
pub fn behind_nat1(layout: NatLayout) -> Lab {
    let lab = Lab::with(layout);
    lab.plain_nat("nat1");
    for host in ["host1", "host2"] {
        lab.default_via(host, "nat1");
        // A NAT with one interface that forwards a packet without translation, before our part is
        // there, names the router as the nearer way (tests/netns_redirects.rs).
        let accept = |ip, conf| format!("net/{ip}/conf/{conf}/accept_redirects");
        for (ip, conf) in [
            ("ipv4", "all"),
            ("ipv4", PRIVATE_LINK),
            ("ipv6", PRIVATE_LINK),
        ] {
            lab.ns(host).sysctl(&[(&accept(ip, conf), "0")]);
        }
        // A subnet's route table sends peered networks straight there, in both directions.
        lab.ns(host).ip_batch(&format!(
            "route add 10.8.0.0/16 via {ROUTER}\nroute add fd08:8::/64 via {ROUTER6} dev priv\n"
        ));
    }
    if layout == NatLayout::TwoInterfaces {
        // A second gateway on the same link, for configs that name one.
        lab.ns("vpc").ip_batch(
            "addr add 198.51.100.2/29 dev nat1-pub\naddr add fe80::1:2/64 dev nat1-pub nodad\n",
        );
    }
    let_in(&lab);
    lab
}

/// The administrator admits clients outside to `host1`, at one port of the egress address.
pub fn let_in(lab: &Lab) {
    let link = match lab.layout {
        NatLayout::OneInterface => PRIVATE_LINK,
        NatLayout::TwoInterfaces | NatLayout::BulkInterface => PUBLIC_LINK,
    };
    let NatAddresses {
        egress, egress6, ..
    } = lab.nat1;
    lab.ns("nat1").nft(&format!(
        "table inet letin {{
           chain pre {{
             type nat hook prerouting priority dstnat;
             iifname {link} ip daddr {egress} tcp dport {PORT} dnat ip to {HOST1}
             iifname {link} ip6 daddr {egress6} tcp dport {PORT} dnat ip6 to {HOST1_6}
           }}
         }}"
    ));
}
