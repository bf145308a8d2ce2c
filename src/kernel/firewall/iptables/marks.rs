//! Foreign rules of iptables-legacy that read or write marks. netlink does not show these rules, so
//! the program lists them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::CHAIN_PREFIX;
use super::legacy::{listing, program, tables};
use super::records::records;
use super::rule::tokens;
use crate::firewall::marks::{Access, Carrier, MarkUse};
use crate::kernel::firewall::error::FirewallError;
use crate::types::{Family, Mark};

/// Reads the marks of the foreign rules of iptables-legacy. Starts a program only if the network
/// namespace has legacy tables.
///
/// # Errors
/// A legacy table exists and no program can list it.
pub fn foreign_marks() -> Result<BTreeSet<MarkUse>, FirewallError> {
    let mut found = BTreeSet::new();
    for family in Family::ALL {
        if tables(family).is_empty() {
            continue;
        }
        let operation = format!("read the {family} rules of iptables-legacy");
        let program = program(family, "-save", &operation)?;
        let text = listing(&program, &[], Duration::ZERO, &operation)?;
        let program = program.trim_end_matches("-save");
        found.extend(parse(&text, program));
    }
    Ok(found)
}

/// Reads the output of `iptables-save`.
pub(super) fn parse(text: &str, program: &str) -> Vec<MarkUse> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in records(text) {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        }
        let Some((chain, words)) = line
            .strip_prefix("-A ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        if !chain.starts_with(CHAIN_PREFIX) {
            let place = format!("{program} table {table}, chain {chain}");
            found.extend(
                of_rule(words)
                    .into_iter()
                    .map(|(carrier, access, mark)| MarkUse {
                        place: place.clone(),
                        carrier,
                        access,
                        mark,
                    }),
            );
        }
    }
    found
}

fn of_rule(words: &str) -> Vec<(Carrier, Access, Mark)> {
    let words: Vec<String> = tokens(words)
        .into_iter()
        // A quoted word is a comment or a prefix of a log.
        .filter(|token| !token.quoted)
        .map(|token| token.text)
        .collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).map(String::as_str)
    };
    let mask = |name: &str| after(name).and_then(number).unwrap_or(u32::MAX);
    let mut found = Vec::new();
    let mut module = "";
    for pair in words.windows(2) {
        match (pair[0].as_str(), module) {
            ("-m", _) => module = &pair[1],
            ("--mark", "mark") => found.push((Carrier::Packet, Access::Reads, mark(&pair[1]))),
            ("--mark", "connmark") => found.push((Carrier::Flow, Access::Reads, mark(&pair[1]))),
            _ => {}
        }
    }
    let (ctmask, nfmask) = (mask("--ctmask"), mask("--nfmask"));
    let copied = |mask| Mark {
        value: ctmask & nfmask,
        mask,
    };
    let has = |name: &str| words.iter().any(|word| word == name);
    match after("-j") {
        Some("MARK") => {
            let set = after("--set-xmark").or(after("--set-mark"));
            found.extend(set.map(|set| (Carrier::Packet, Access::Writes, mark(set))));
        }
        Some("TPROXY") => {
            let set = after("--tproxy-mark");
            found.extend(set.map(|set| (Carrier::Packet, Access::Writes, mark(set))));
        }
        Some("CONNMARK") if has("--save-mark") => {
            found.push((Carrier::Flow, Access::Writes, copied(ctmask)));
        }
        Some("CONNMARK") if has("--restore-mark") => {
            found.push((Carrier::Packet, Access::Writes, copied(nfmask)));
        }
        Some("CONNMARK") => {
            let set = after("--set-xmark").or(after("--set-mark"));
            found.extend(set.map(|set| (Carrier::Flow, Access::Writes, mark(set))));
        }
        _ => {}
    }
    found
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `0x2000/0x2000`, or a value that stands for all bits.
fn mark(text: &str) -> Mark {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Mark {
        value: number(value).unwrap_or(0),
        mask: number(mask).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_every_match_and_target_are_read() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n\
            -A PREROUTING -m comment --comment \"-j MARK --set-xmark 0x9\" -m mark --mark 0x1/0x3 -j ACCEPT\n\
            -A PREROUTING -m connmark ! --mark 0x4/0x4 -j MARK --set-xmark 0x2000/0x2000\n\
            -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf0\n\
            -A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
            -A PREROUTING -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0xff\n\
            -A TRAILBLAZER-PRE -j CONNMARK --set-xmark 0x30/0x30\nCOMMIT\n";
        let found = parse(text, "iptables-legacy");
        let lines: Vec<String> = found
            .iter()
            .map(|found| {
                assert_eq!(
                    found.place,
                    "iptables-legacy table mangle, chain PREROUTING"
                );
                let (carrier, access) = (found.carrier.as_str(), found.access.as_str());
                format!("{access} {carrier} {}", found.mark)
            })
            .collect();
        assert_eq!(
            lines,
            [
                "compares packet mark 0x1/0x3",
                "compares flow mark 0x4/0x4",
                "writes packet mark 0x2000/0x2000",
                "writes packet mark 0xf0/0xff",
                "writes flow mark 0xffffffff/0xffffffff",
                "writes packet mark 0x1/0xff",
            ]
        );
    }
}
