//! Commands that let packets pass a foreign chain, in the syntax of the chain's tool.

use super::chain::BaseChain;
use crate::types::Family;

/// `iptables -t mangle`: the program and the table for a built-in chain of iptables; `None` for other
/// chains.
fn program(chain: &BaseChain) -> Option<String> {
    const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let table = chain.table.trim_start_matches("table ");
    if !BUILT_IN.contains(&chain.name.as_str()) || table.starts_with("inet ") {
        return None;
    }
    let (program, table) = match table.split_once(" table ") {
        Some((program, table)) => (program, table),
        None => {
            let (_, table) = table.split_once(' ')?;
            match chain.families.as_slice() {
                [Family::Ipv6] => ("ip6tables", table),
                _ => ("iptables", table),
            }
        }
    };
    Some(match table {
        "filter" => program.to_owned(),
        other => format!("{program} -t {other}"),
    })
}

/// The rules that let packets from one interface to another pass, and the answers.
pub(super) fn accept_both(chain: &BaseChain, input: &str, output: &str) -> String {
    let name = &chain.name;
    let table = chain.table.trim_start_matches("table ");
    if table.starts_with("inet firewalld") {
        return format!(
            "add a firewalld policy from the zone of {input} to the zone of {output} with target ACCEPT"
        );
    }
    // The chains of iptables, by either interface.
    if let Some(program) = program(chain) {
        // Docker keeps this chain for the administrator, before its own.
        let first = if chain.chains.contains_key("DOCKER-USER") {
            "DOCKER-USER"
        } else {
            name
        };
        return format!(
            "accept both directions: {program} -I {first} -i {input} -o {output} -j ACCEPT; {program} -I {first} -i {output} -o {input} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        );
    }
    format!(
        "accept both directions: nft insert rule {table} {name} iifname {input} oifname {output} accept; nft insert rule {table} {name} iifname {output} oifname {input} ct state established,related accept"
    )
}

/// The rule that lets answers to this host pass.
pub(super) fn accept_answers(chain: &BaseChain) -> String {
    let name = &chain.name;
    let table = chain.table.trim_start_matches("table ");
    match program(chain) {
        Some(program) => format!(
            "accept answers: {program} -I {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ),
        None => format!(
            "accept answers: nft insert rule {table} {name} ct state established,related accept"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::chain::ChainPlace;

    fn chain(table: &str, name: &str, family: Family) -> BaseChain {
        BaseChain {
            table: table.to_owned(),
            name: name.to_owned(),
            place: ChainPlace::Input,
            families: vec![family],
            priority: 0,
            age: None,
            devices: Vec::new(),
            reroutes: false,
            drops: true,
            chains: BTreeMap::new(),
        }
    }

    #[test]
    fn remedies_name_the_tool_and_the_table() {
        for (table, name, expected) in [
            ("table ip filter", "INPUT", "iptables -I INPUT -m"),
            ("table ip mangle", "INPUT", "iptables -t mangle -I INPUT -m"),
            (
                "iptables-legacy table security",
                "INPUT",
                "iptables-legacy -t security -I INPUT -m",
            ),
            ("table ip fw", "i", "nft insert rule ip fw i ct state"),
            ("table inet fw", "INPUT", "nft insert rule inet fw INPUT ct"),
        ] {
            let text = accept_answers(&chain(table, name, Family::Ipv4));
            assert!(text.contains(expected), "{text}");
        }
        let mangle = chain("table ip6 mangle", "FORWARD", Family::Ipv6);
        let text = accept_both(&mangle, "priv", "pub");
        let first = "ip6tables -t mangle -I FORWARD -i priv -o pub -j ACCEPT";
        assert!(text.contains(first), "{text}");
    }
}
