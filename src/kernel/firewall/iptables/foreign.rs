//! The rules of iptables-legacy in the path of forwarded packets and of the host's own. The kernel announces no change of
//! them and netlink does not show them, so the program lists them.

mod writes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::CHAIN_PREFIX;
use super::legacy::{listing, program, tables};
use super::records::records;
use super::rule::{Opt, options};
use crate::judge::chain::{
    BaseChain, ChainPlace, Condition, Effect, Field, ForeignRule, NewSource, Test, octets,
};
use crate::judge::destination::of_type;
use crate::judge::marks::Write;
use crate::kernel::firewall::error::FirewallError;
use crate::types::Family;
use writes::{is_write, masked, write};

/// The tables with the base chains of interest: table, chain, place, priority of the hook
/// (linux/netfilter_ipv4.h).
const BASES: [(&str, &str, ChainPlace, i32); 16] = [
    ("nat", "PREROUTING", ChainPlace::Diversion, -100),
    ("raw", "PREROUTING", ChainPlace::Prerouting, -300),
    ("mangle", "PREROUTING", ChainPlace::Prerouting, -150),
    ("mangle", "FORWARD", ChainPlace::Forward, -150),
    ("filter", "FORWARD", ChainPlace::Forward, 0),
    ("security", "FORWARD", ChainPlace::Forward, 50),
    ("mangle", "INPUT", ChainPlace::Input, -150),
    ("filter", "INPUT", ChainPlace::Input, 0),
    ("security", "INPUT", ChainPlace::Input, 50),
    ("nat", "OUTPUT", ChainPlace::OutputDiversion, -100),
    ("raw", "OUTPUT", ChainPlace::Output, -300),
    ("mangle", "OUTPUT", ChainPlace::Output, -150),
    ("filter", "OUTPUT", ChainPlace::Output, 0),
    ("security", "OUTPUT", ChainPlace::Output, 50),
    ("mangle", "POSTROUTING", ChainPlace::Postrouting, -150),
    ("nat", "POSTROUTING", ChainPlace::Translation, 100),
];

/// Reads the foreign chains of iptables-legacy. Starts a program only if a legacy table is in use.
///
/// # Errors
/// A table is in use and cannot be listed.
pub fn foreign_chains() -> Result<Vec<BaseChain>, FirewallError> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let tables = tables(family);
        let bases: Vec<_> = BASES
            .iter()
            .filter(|(table, ..)| tables.iter().any(|name| name == table))
            .collect();
        if bases.is_empty() {
            continue;
        }
        let operation = format!("read the {family} chains of iptables-legacy");
        let program = program(family, "", &operation)?;
        let mut listed: BTreeMap<&str, (ChainsByName, BTreeMap<String, String>)> = BTreeMap::new();
        for (table, chain, place, priority) in bases {
            if !listed.contains_key(table) {
                let arguments = ["-w", "5", "-t", table, "-S"];
                let text = listing(&program, &arguments, WAIT, &operation)?;
                listed.insert(table, parse(&text, family));
            }
            let (chains, policies) = listed.get(table).cloned().unwrap_or_default();
            found.push(BaseChain {
                table: format!("{program} table {table}"),
                name: (*chain).to_owned(),
                place: *place,
                families: vec![family],
                priority: *priority,
                age: None,
                devices: Vec::new(),
                // `ipt_mangle_out`, net/ipv4/netfilter/iptable_mangle.c.
                reroutes: (*table, *chain) == ("mangle", "OUTPUT"),
                drops: policies.get(*chain).is_some_and(|policy| policy == "DROP"),
                chains,
            });
        }
    }
    Ok(found)
}

/// The waiting time of the program for its lock.
const WAIT: Duration = Duration::from_secs(5);

type ChainsByName = BTreeMap<String, Vec<ForeignRule>>;

/// Reads the output of `iptables -S`: chains, and policies of built-in chains.
pub(super) fn parse(text: &str, family: Family) -> (ChainsByName, BTreeMap<String, String>) {
    let (mut chains, mut policies) = (ChainsByName::new(), BTreeMap::new());
    for line in records(text) {
        let Some((kind, rest)) = line.split_once(' ') else {
            continue;
        };
        let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "-P" => {
                policies.insert(name.to_owned(), words.to_owned());
                chains.entry(name.to_owned()).or_default();
            }
            "-N" => {
                chains.entry(name.to_owned()).or_default();
            }
            "-A" => chains
                .entry(name.to_owned())
                .or_default()
                .push(rule(words, family)),
            _ => {}
        }
    }
    (chains, policies)
}

fn rule(words: &str, family: Family) -> ForeignRule {
    let mut conditions = Vec::new();
    let mut effect = Effect::Continue;
    let mut of_target = false;
    let mut writes = Vec::new();
    let mut target_name = String::new();
    let mut module = String::new();
    for option in options(words) {
        let value = option.values.first().map_or("", String::as_str);
        match option.name.as_str() {
            "-m" => value.clone_into(&mut module),
            "-j" => {
                effect = target(value);
                value.clone_into(&mut target_name);
                writes.extend((value == "NOTRACK").then_some(Write::Untrack));
                if value == "NFQUEUE" {
                    // A program decides, perhaps for an acceptance.
                    conditions.push(Condition::unknown());
                    effect = Effect::Accept;
                }
                of_target = true;
            }
            "-g" => {
                effect = Effect::Goto(value.to_owned());
                of_target = true;
            }
            name if of_target && is_write(name) => {
                write(&target_name, &option, value, &mut writes);
            }
            "--to-source" if of_target => effect = Effect::Translate(first_address(value).into()),
            // Matches follow with options of their own.
            "--comment" => {}
            _ if of_target => {}
            "--mark" if module == "mark" => {
                conditions.push(mark(Field::Mark, value, option.negated));
            }
            "--mark" if module == "connmark" => {
                conditions.push(mark(Field::FlowMark, value, option.negated));
            }
            "--uid-owner" => conditions.push(user(value, option.negated)),
            "--dst-type" => conditions.push(destination_type(value, option.negated)),
            _ => conditions.push(condition(&option, value, family)),
        }
    }
    ForeignRule {
        conditions,
        writes,
        effect,
    }
}

fn target(name: &str) -> Effect {
    match name {
        "ACCEPT" => Effect::Accept,
        "DROP" => Effect::Drop,
        "REJECT" => Effect::Reject,
        "RETURN" => Effect::Return,
        "MASQUERADE" => Effect::Translate(NewSource::OfInterface),
        "SNAT" | "NETMAP" => Effect::Translate(NewSource::Unknown),
        "DNAT" | "REDIRECT" | "TPROXY" => Effect::Divert,
        name if name.starts_with(CHAIN_PREFIX) => Effect::Ours,
        // Names of extensions: their chains don't exist, and no rule ends with them.
        "LOG" | "NFLOG" | "NOTRACK" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "TTL" | "HL"
        | "DSCP" | "TOS" | "CLASSIFY" | "TRACE" | "SET" | "ULOG" | "AUDIT" | "CHECKSUM"
        | "RATEEST" => Effect::Continue,
        chain => Effect::Jump(chain.to_owned()),
    }
}

/// `192.0.2.1`, `192.0.2.1-192.0.2.9`, `192.0.2.1:1024-2047`.
fn first_address(text: &str) -> Option<IpAddr> {
    let first = text.split('-').next()?;
    let plain = first.trim_start_matches('[').trim_end_matches(']');
    plain.parse().ok().or_else(|| {
        let (address, _port) = first.rsplit_once(':')?;
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok()
    })
}

fn condition(option: &Opt, value: &str, family: Family) -> Condition {
    let negated = option.negated;
    match option.name.as_str() {
        "-i" => name(Field::InputName, value, negated),
        "-o" => name(Field::OutputName, value, negated),
        "-s" => network(Field::Source(family), value, negated),
        "-d" => network(Field::Destination(family), value, negated),
        "-p" => protocol(value, negated),
        "--sport" | "--sports" => ports(Field::SourcePort, value, negated),
        "--dport" | "--dports" => ports(Field::DestinationPort, value, negated),
        "--ctstate" | "--state" => states(value, negated),
        "--ctstatus" => status(value, negated),
        _ => Condition::unknown(),
    }
}

/// An interface name; `eth+` stands for all names that begin with `eth`.
fn name(field: Field, value: &str, negated: bool) -> Condition {
    let bytes = match value.strip_suffix('+') {
        Some(begin) => begin.as_bytes().to_vec(),
        None => [value.as_bytes(), &[0]].concat(),
    };
    Condition::equals(field, bytes, negated)
}

fn network(field: Field, value: &str, negated: bool) -> Condition {
    let parsed = value
        .parse::<IpNet>()
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
    match parsed {
        Ok(network) => Condition {
            field,
            mask: octets(network.netmask()),
            test: Test::Equals(octets(network.network())),
            negated,
        },
        Err(_) => Condition::unknown(),
    }
}

fn protocol(value: &str, negated: bool) -> Condition {
    let number = match value {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "ipv6-icmp" | "icmpv6" => 58,
        "all" => return Condition::equals(Field::Protocol, Vec::new(), negated),
        // A protocol by another name is not TCP.
        other => other.parse().unwrap_or(u8::MAX),
    };
    Condition::equals(Field::Protocol, vec![number], negated)
}

/// `443`, `80:443`, `80,443,8000:8999`.
fn ports(field: Field, value: &str, negated: bool) -> Condition {
    let end = |text: &str, open: u16| {
        let number = if text.is_empty() {
            Ok(open)
        } else {
            text.parse()
        };
        number.ok().map(|port: u16| port.to_be_bytes().to_vec())
    };
    let ranges: Option<Vec<(Vec<u8>, Vec<u8>)>> = value
        .split(',')
        .map(|part| {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            Some((end(first, 0)?, end(last, u16::MAX)?))
        })
        .collect();
    match ranges {
        Some(ranges) => Condition {
            field,
            mask: Vec::new(),
            test: Test::InRanges(ranges),
            negated,
        },
        None => Condition::unknown(),
    }
}

fn states(value: &str, negated: bool) -> Condition {
    let bits: Option<u32> = value
        .split(',')
        .map(|state| match state {
            "INVALID" => Some(1),
            "ESTABLISHED" => Some(2),
            "RELATED" => Some(4),
            "NEW" => Some(8),
            "UNTRACKED" => Some(64),
            // Nobody translates the destination of an ordinary packet.
            "DNAT" => Some(0),
            _ => None,
        })
        .sum();
    any_bit(Field::FlowState, bits, negated)
}

fn mark(field: Field, value: &str, negated: bool) -> Condition {
    match masked(value) {
        Some((mark, mask)) => Condition {
            mask: mask.to_ne_bytes().into(),
            ..Condition::equals(field, mark.to_ne_bytes().into(), negated)
        },
        None => Condition::unknown(),
    }
}

/// `1000`; the reader knows no ranges.
fn user(value: &str, negated: bool) -> Condition {
    match value.parse::<u32>() {
        Ok(user) => Condition::equals(Field::User, user.to_ne_bytes().into(), negated),
        Err(_) => Condition::unknown(),
    }
}

/// `LOCAL`, `LOCAL,BROADCAST`.
fn destination_type(value: &str, negated: bool) -> Condition {
    /// In the order of `RTN_*` (linux/rtnetlink.h).
    const TYPES: [&str; 10] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
    ];
    let types: Option<Vec<u32>> = value
        .split(',')
        .map(|word| {
            let place = TYPES.iter().position(|known| *known == word)?;
            u32::try_from(place).ok()
        })
        .collect();
    types.map_or_else(Condition::unknown, |types| of_type(types, negated))
}

/// The status bits of a flow (`IPS_*`, linux/netfilter/nf_conntrack_common.h).
fn status(value: &str, negated: bool) -> Condition {
    let bits: Option<u32> = value
        .split(',')
        .map(|word| match word {
            "EXPECTED" => Some(0x01),
            "SEEN_REPLY" => Some(0x02),
            "ASSURED" => Some(0x04),
            "CONFIRMED" => Some(0x08),
            _ => None,
        })
        .sum();
    any_bit(Field::FlowStatus, bits, negated)
}

/// Matches if the field has one of the bits; unknown without them.
fn any_bit(field: Field, bits: Option<u32>, negated: bool) -> Condition {
    match bits {
        Some(bits) => Condition {
            field,
            mask: bits.to_ne_bytes().into(),
            test: Test::Equals(vec![0; 4]),
            negated: !negated,
        },
        None => Condition::unknown(),
    }
}

#[cfg(test)]
mod tests;
