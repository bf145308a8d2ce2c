//! The rules of others.

use std::fmt::Write;

use ipnet::IpNet;

use super::contenders::Role;
use super::scene::nft;
use super::{Res, arena, documents};

/// A rule that looks at the state of a flow, so that conntrack runs.
pub fn conntrack() -> Res<()> {
    nft(
        "table inet plain { chain first { type filter hook prerouting priority -150; ct state invalid accept; }; }\n",
    )
}

/// MASQUERADE of both families on each interface to the internet.
pub fn masquerade() -> Res<()> {
    nft(
        "table inet plain { chain last { type nat hook postrouting priority 100; oifname { pub, bulk } masquerade; }; }\n",
    )
}

/// The rules of fck-nat, by its start script: both families are forwarded, reverse path filters are off
/// (see `Scene`), and iptables masquerades IPv4 on the public interface. Its NAT64 is left out.
pub fn fck_nat() -> Res<()> {
    masquerade_by_iptables("iptables")
}

fn masquerade_by_iptables(tool: &str) -> Res<()> {
    let words = ["-t", "nat", "-A", "POSTROUTING", "-o", "pub", "-j"];
    arena::command(tool, &[&words[..], &["MASQUERADE"]].concat())
}

/// A rule for each prefix that marks packets for a table of routes, as scripts without a table of
/// prefixes do. A NAT translates too. No rule ends the way of a packet.
pub fn linear(role: Role, count: usize) -> Res<()> {
    let chain = match role {
        Role::Host => "OUTPUT",
        Role::Nat => "PREROUTING",
    };
    // A quarter of the prefixes is IPv6.
    let prefixes = documents::prefixes(4 * count);
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
        prefixes.iter().partition(|it| matches!(it, IpNet::V4(_)));
    for (tool, prefixes) in [("iptables", v4), ("ip6tables", v6)] {
        let prefixes: Vec<IpNet> = prefixes.into_iter().take(count).collect();
        // One transaction of iptables must fit the buffer of its socket.
        for batch in prefixes.chunks(500) {
            let mut rules = "*mangle\n".to_owned();
            for prefix in batch {
                writeln!(rules, "-A {chain} -d {prefix} -j MARK --set-mark 1")?;
            }
            rules.push_str("COMMIT\n");
            let path = format!("{}/{tool}.rules", arena::DIRECTORY);
            std::fs::write(&path, rules)?;
            arena::command(&format!("{tool}-restore"), &["--noflush", &path])?;
        }
        if role == Role::Nat {
            masquerade_by_iptables(tool)?;
        }
    }
    Ok(())
}
