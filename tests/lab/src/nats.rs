//! Further NAT instances, beyond the two of each lab.

use std::fmt::Write;

use super::topology::{add_namespaces, feed_ip, mac, near_index};
use super::*;

/// The NAT instances of a lab with the most of them.
pub const NATS: [&str; 7] = ["nat1", "nat2", "nat3", "nat4", "nat5", "nat6", "nat7"];

/// The number of an instance, from 1 on.
pub(super) fn number_of(name: &str) -> Option<u8> {
    let index = NATS.iter().position(|nat| *nat == name)?;
    u8::try_from(index + 1).ok()
}

impl Lab {
    /// A lab with two to seven NAT instances, each with a private and a public interface, which drop
    /// packets of unknown flows.
    pub fn with_nats(count: usize) -> Lab {
        let mut lab = Lab::new();
        let further = &NATS[2..count.max(2)];
        if !further.is_empty() {
            let namespaces = add_namespaces(further, |_| true);
            for (index, name) in further.iter().enumerate() {
                let ns = &namespaces[name];
                lab.connect(index, name, ns);
            }
            lab.namespaces.extend(namespaces);
        }
        let nats = &NATS[..count.max(2)];
        for nat in nats {
            lab.guarded_nat(nat);
        }
        let all = nats.iter().map(|nat| lab.nat(nat));
        let egress: Vec<IpAddr> = all
            .flat_map(|nat| [nat.egress_public, nat.egress6])
            .collect();
        lab.set_egress(&egress);
        lab
    }

    /// The links, addresses and routes of a further instance.
    fn connect(&self, index: usize, name: &str, ns: &Ns) {
        let nat = self.nat(name);
        let mut links = String::new();
        for (link, address, far, number) in [
            (PRIVATE_LINK, nat.private, name.to_owned(), 0),
            (PUBLIC_LINK, nat.egress, format!("{name}-pub"), 1),
        ] {
            let _infallible = writeln!(
                links,
                "link add {link} index {} netns {name} address {} type veth peer name {far} netns vpc",
                near_index(200 + 2 * index + number),
                mac(address)
            );
        }
        feed_ip(&links);
        let subnet = |address: IpAddr| {
            let net = IpNet::new(address, 64).expect("64 is a length of IPv6");
            net.trunc()
        };
        self.ns("vpc").ip_batch(&format!(
            "link set {name} master {PRIVATE_LINK} up\n\
             link set {name}-pub up\n\
             addr add {}/29 dev {name}-pub\n\
             addr add {ROUTER6}/64 dev {name}-pub nodad\n\
             route add {} dev {name}-pub\n",
            nat.gateway,
            subnet(nat.egress6)
        ));
        let mut lines = String::new();
        topology::nat(self.layout, number_of(name).unwrap_or(1), &mut |line| {
            lines.push_str(&line);
            lines.push('\n');
        });
        ns.ip_batch(&format!("link set lo up\n{lines}"));
        settle::wait_until_settled(ns);
    }
}
