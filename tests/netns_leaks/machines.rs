//! The machines of each role: labs, addresses, settings and guests.

use std::net::IpAddr;

use crate::packets::Firewall;
use crate::packets::nat::{SOURCES, behind_nat1, bulk_interface, one_gateway};
use lab::*;

/// Role and layout of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Host,
    /// A second interface has the bypass path and a default of the main table.
    HostTwo,
    NatTwo,
    NatOne,
    NatBulk,
}

impl Role {
    pub fn is_host(self) -> bool {
        matches!(self, Role::Host | Role::HostTwo)
    }

    pub fn layout(self) -> NatLayout {
        match self {
            Role::Host | Role::HostTwo | Role::NatTwo => NatLayout::TwoInterfaces,
            Role::NatOne => NatLayout::OneInterface,
            Role::NatBulk => NatLayout::BulkInterface,
        }
    }

    pub fn machine(self) -> &'static str {
        if self.is_host() { "host1" } else { "nat1" }
    }

    /// The links to the internet, at the machine and at the router.
    pub fn links(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Role::Host => &[("priv", "host1")],
            Role::HostTwo => &[("priv", "host1"), ("bulk", "host1-bulk")],
            Role::NatTwo => &[("pub", "nat1-pub")],
            Role::NatOne => &[("priv", "nat1")],
            Role::NatBulk => &[("pub", "nat1-pub"), ("bulk", "nat1-bulk")],
        }
    }
}

/// The firewall of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    /// iptables, beside nf_tables.
    Iptables,
    /// iptables-legacy, beside nf_tables.
    Legacy,
    /// iptables on a kernel without nf_tables: IPv4 alone is closed, and no process of the binary can
    /// run there.
    Alone,
}

impl Backend {
    pub fn firewall(self) -> Firewall {
        match self {
            Backend::Nftables => Firewall::Nftables,
            Backend::Iptables | Backend::Alone => Firewall::Iptables,
            Backend::Legacy => Firewall::IptablesLegacy,
        }
    }
}

/// The state of the product while a cause acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `shut` before the devices exist, and nothing after that.
    Boot,
    /// One-shot passes.
    OneShot,
    /// An agent.
    Running,
    /// An agent has died without warning.
    Dead,
    /// A counter-proof: one-shot passes with `enforce = false`.
    Open,
    /// A counter-proof: no product.
    Absent,
}

/// The lab of a role. The administrator's translation would hide the lack of ours.
pub fn lab_of(role: Role) -> Lab {
    if !role.is_host() {
        let lab = behind_nat1(role.layout());
        lab.ns("nat1").nft("delete table inet natbox");
        second_addresses(lab.ns("host1"));
        return lab;
    }
    let lab = Lab::with(role.layout());
    lab.guarded_nat("nat1");
    lab.ns("vpc").sysctl(&[
        (&format!("net/ipv4/conf/{PRIVATE_LINK}/proxy_arp"), "1"),
        (&format!("net/ipv4/neigh/{PRIVATE_LINK}/proxy_delay"), "0"),
    ]);
    if role == Role::HostTwo {
        let ends = "bulk index 300 type veth peer name host1-bulk index 301 netns vpc";
        lab.ns("host1").ip(&format!("link add {ends}"));
        lab.ns("host1").ip_batch(&network(&lab, role));
        lab.ns("vpc").ip_batch(&format!(
            "link set host1-bulk up\naddr add 203.0.113.78/28 dev host1-bulk\n\
             addr add {ROUTER6}/64 dev host1-bulk nodad\n\
             addr add 2600:1f18:1000:22::78/64 dev host1-bulk nodad\n"
        ));
    }
    second_addresses(lab.ns("host1"));
    lab
}

pub const SECOND: [&str; 2] = ["10.0.7.7", "2600:1f18:1000:1::77"];

fn second_addresses(ns: &Ns) {
    let [second, second6] = SECOND;
    ns.ip_batch(&format!(
        "link add second0 type veth peer name second1\nlink set second1 up\nlink set second0 up\naddr add {second}/32 dev second0\n\
         addr add {second6}/128 dev second0 nodad preferred_lft 0\n"
    ));
}

pub fn parsed(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|it| it.parse().unwrap())
}

/// A container of the machine.
pub fn guest(machine: &Ns) -> Ns {
    machine.run(&["ip", "netns", "add", "guest"]);
    let guest = Ns::open("guest");
    machine.ip("link add c0 type veth peer name eth0 netns guest");
    machine.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ]);
    machine.ip_batch(
        "addr add 172.20.0.1/24 dev c0\naddr add fd20::1/64 dev c0 nodad\nlink set c0 up\n",
    );
    guest.ip_batch(
        "link set lo up\naddr add 172.20.0.2/24 dev eth0\naddr add 172.20.0.9/32 dev lo\n\
         addr add fd20::2/64 dev eth0 nodad\naddr add fd20::9/128 dev lo nodad\nlink set eth0 up\n\
         route add default via 172.20.0.1\nroute add default via fd20::1\n",
    );
    guest
}

/// The packets of the guest get the host's address.
pub const MASQUERADE: &str = "
    table inet containers {
      chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 172.20.0.0/24 masquerade
        ip6 saddr fd20::/64 masquerade
      }
    }";

/// Addresses and defaults of the links to the internet, as DHCP and router advertisements bring them.
pub fn network(lab: &Lab, role: Role) -> String {
    let nat = &lab.nat1;
    let [host4, host6] = dhcp_routes(HOST1).map(|it| it.replacen("add", "replace", 1));
    let host = format!(
        "link set priv up\naddr replace {HOST1}/24 dev priv\naddr replace {HOST1_6}/64 dev priv nodad\n\
         {host4}\n{host6}\n"
    );
    let way = |device: &str, gateway: IpAddr, metric: u32| {
        format!(
            "route replace default via {gateway} dev {device} proto dhcp metric {metric}\n\
             route replace ::/0 via {ROUTER6} dev {device} proto ra metric {metric}\n"
        )
    };
    let own = |device: &str, four: &[IpAddr], length: u8, six: &[IpAddr]| {
        let mut lines = format!("link set {device} up\n");
        for address in four {
            lines += &format!("addr replace {address}/{length} dev {device}\n");
        }
        for address in six {
            lines += &format!("addr replace {address}/64 dev {device} nodad\n");
        }
        lines
    };
    match role {
        Role::Host => host,
        Role::HostTwo => {
            let more = parsed(["203.0.113.77", "2600:1f18:1000:22::77"]);
            let gateway = IpAddr::from([203, 0, 113, 78]);
            host + &own("bulk", &more[..1], 28, &more[1..]) + &way("bulk", gateway, 522)
        }
        Role::NatTwo => {
            own(
                "pub",
                &[nat.egress, nat.second],
                29,
                &[nat.second6, nat.egress6],
            ) + &way("pub", nat.gateway, 512)
        }
        Role::NatOne => {
            own(
                "priv",
                &[nat.private, nat.egress, nat.second],
                24,
                &[nat.private6, nat.second6, nat.egress6],
            ) + &way("priv", nat.gateway, 512)
        }
        Role::NatBulk => {
            own("pub", &[nat.egress], 29, &[nat.egress6])
                + &own("bulk", &[nat.second], 29, &[nat.second6])
                + &way("pub", nat.gateway, 512)
                + &way("bulk", nat.second_gateway, 522)
        }
    }
}

pub fn settings(lab: &Lab, role: Role, firewall: Firewall, enforce: bool) -> String {
    if !role.is_host() {
        let case = match role {
            Role::NatBulk => bulk_interface(firewall),
            _ => one_gateway(role.layout(), firewall),
        };
        return format!(
            "{SOURCES}{}[vpc]\nmetadata = \"off\"\n",
            (case.settings)(&lab.nat1)
        );
    }
    let bypass = if role == Role::HostTwo {
        "[bypass]\ninterface = \"bulk\"\n"
    } else {
        ""
    };
    format!(
        "[vpc]\nmetadata = \"off\"\n{bypass}[egress]\nenforce = {}\n\
         gateways = [\"10.0.1.10\", \"2600:1f18:1000:1::10\"]\n",
        if enforce { "\"auto\"" } else { "false" }
    )
}
