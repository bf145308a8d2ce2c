//! The rules of iptables-legacy in the path of forwarded packets. The kernel announces no change of
//! them and netlink does not show them, so the program lists them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::CHAIN_PREFIX;
use super::rule::{Opt, options};
use super::tool::{self, Version, io, refused};
use crate::firewall::Variant;
use crate::judge::chain::{BaseChain, Condition, Effect, Field, ForeignRule, Place, Test, octets};
use crate::kernel::firewall::error::FirewallError;
use crate::types::Family;

/// The tables with the base chains of interest: table, chain, place, priority of the hook
/// (linux/netfilter_ipv4.h).
const BASES: [(&str, &str, Place, i32); 3] = [
    ("mangle", "FORWARD", Place::Forward, -150),
    ("filter", "FORWARD", Place::Forward, 0),
    ("nat", "POSTROUTING", Place::Translation, 100),
];

/// The legacy tables in use in this network namespace.
fn tables(family: Family) -> Vec<String> {
    let path = match family {
        Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
        Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // Without the module there is no file.
    let names = std::fs::read_to_string(path).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// The program that lists legacy tables.
fn program(family: Family) -> Option<&'static str> {
    let (legacy, plain) = match family {
        Family::Ipv4 => ("iptables-legacy", "iptables"),
        Family::Ipv6 => ("ip6tables-legacy", "ip6tables"),
    };
    [legacy, plain].into_iter().find(|name| {
        let output = tool::run(name, &["--version"], "", Duration::ZERO);
        output.is_ok_and(|output| {
            Version::parse(&String::from_utf8_lossy(&output.stdout))
                .is_some_and(|version| version.variant == Variant::Legacy)
        })
    })
}

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
        let Some(program) = program(family) else {
            let reason = "legacy tables are in use, and no iptables-legacy is installed";
            return Err(refused(&operation, reason.to_owned()));
        };
        for (table, chain, place, priority) in bases {
            let output = tool::run(program, &["-w", "5", "-t", table, "-S"], "", WAIT)
                .map_err(|source| io(&operation, source))?;
            if !output.status.success() {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(refused(&operation, reason));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let (chains, policies) = parse(&text, family);
            found.push(BaseChain {
                table: format!("{program} table {table}"),
                name: (*chain).to_owned(),
                place: *place,
                families: vec![family],
                priority: *priority,
                drops: policies.get(*chain).is_some_and(|policy| policy == "DROP"),
                chains,
            });
        }
    }
    Ok(found)
}

/// The waiting time of the program for its lock.
const WAIT: Duration = Duration::from_secs(5);

type Chains = BTreeMap<String, Vec<ForeignRule>>;

/// Reads the output of `iptables -S`: chains, and policies of built-in chains.
fn parse(text: &str, family: Family) -> (Chains, BTreeMap<String, String>) {
    let (mut chains, mut policies) = (Chains::new(), BTreeMap::new());
    for line in text.lines() {
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
    for option in options(words) {
        let value = option.values.first().map_or("", String::as_str);
        match option.name.as_str() {
            "-j" => {
                effect = target(value);
                of_target = true;
            }
            "-g" => {
                effect = Effect::Goto(value.to_owned());
                of_target = true;
            }
            "--to-source" if of_target => effect = Effect::Translate(first_address(value)),
            // Matches follow with options of their own.
            "-m" | "--comment" => {}
            _ if of_target => {}
            _ => conditions.push(condition(&option, value, family)),
        }
    }
    ForeignRule { conditions, effect }
}

fn target(name: &str) -> Effect {
    match name {
        "ACCEPT" => Effect::Accept,
        "DROP" => Effect::Drop,
        "REJECT" => Effect::Reject,
        "RETURN" => Effect::Return,
        "MASQUERADE" | "SNAT" | "NETMAP" => Effect::Translate(None),
        name if name.starts_with(CHAIN_PREFIX) => Effect::Ours,
        // Names of extensions: their chains don't exist, and no rule ends with them.
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "TTL" | "HL" | "DSCP" | "TOS"
        | "CLASSIFY" | "TRACE" | "SET" | "ULOG" | "AUDIT" | "CHECKSUM" | "RATEEST" => {
            Effect::Continue
        }
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
        "--ctstate" | "--state" => states(value, negated),
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

fn states(value: &str, negated: bool) -> Condition {
    let bits: Option<u32> = value
        .split(',')
        .map(|state| match state {
            "INVALID" => Some(1),
            "ESTABLISHED" => Some(2),
            "RELATED" => Some(4),
            "NEW" => Some(8),
            "UNTRACKED" => Some(64),
            _ => None,
        })
        .sum();
    match bits {
        Some(bits) => Condition {
            field: Field::FlowState,
            mask: bits.to_ne_bytes().into(),
            test: Test::Equals(vec![0; 4]),
            negated: !negated,
        },
        None => Condition::unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::chain::Packet;
    use crate::judge::fate::{Culprit, Fate};
    use crate::types::IfIndex;

    fn packet(opens: bool) -> Packet {
        Packet {
            input: (IfIndex(2), "priv".to_owned()),
            output: (IfIndex(3), "pub".to_owned()),
            source: "10.0.1.11".parse().unwrap(),
            destination: "203.0.113.1".parse().unwrap(),
            opens,
        }
    }

    fn fate(text: &str, base: (&str, Place), opens: bool) -> Fate {
        let (chains, policies) = parse(text, Family::Ipv4);
        BaseChain {
            table: "iptables-legacy table filter".to_owned(),
            name: base.0.to_owned(),
            place: base.1,
            families: vec![Family::Ipv4],
            priority: 0,
            drops: policies.get(base.0).is_some_and(|policy| policy == "DROP"),
            chains,
        }
        .fate(&packet(opens))
    }

    fn stopped(chain: &str, verdict: &'static str) -> Fate {
        Fate::Stopped(Culprit {
            table: "iptables-legacy table filter".to_owned(),
            chain: chain.to_owned(),
            verdict,
        })
    }

    const FORWARD: (&str, Place) = ("FORWARD", Place::Forward);

    #[test]
    fn docker_stops_packets_of_hosts_by_its_policy() {
        let docker = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n\
            -A FORWARD -j DOCKER-USER\n\
            -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A FORWARD -o docker0 -j DOCKER\n\
            -A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
            -A DOCKER-USER -j RETURN\n";
        assert_eq!(
            fate(docker, FORWARD, true),
            stopped("FORWARD", "policy drop")
        );
        let allowed = docker.replace(
            "-A DOCKER-USER -j RETURN\n",
            "-A DOCKER-USER -i priv -o pub -j ACCEPT\n",
        );
        assert_eq!(fate(&allowed, FORWARD, true), Fate::Passes);
    }

    #[test]
    fn ufw_rules_of_the_administrator_let_packets_pass() {
        let ufw = "-P FORWARD DROP\n-N ufw-before-forward\n-N ufw-user-forward\n\
            -A FORWARD -j ufw-before-forward\n\
            -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT\n\
            -A ufw-before-forward -j ufw-user-forward\n";
        assert_eq!(fate(ufw, FORWARD, true), stopped("FORWARD", "policy drop"));
        assert_eq!(fate(ufw, FORWARD, false), Fate::Passes);
        let allowed = format!("{ufw}-A ufw-user-forward -s 10.0.0.0/16 -o pub -j ACCEPT\n");
        assert_eq!(fate(&allowed, FORWARD, true), Fate::Passes);
        let other = format!("{ufw}-A ufw-user-forward -s 10.9.0.0/16 -o p+ -j ACCEPT\n");
        assert_eq!(
            fate(&other, FORWARD, true),
            stopped("FORWARD", "policy drop")
        );
    }

    #[test]
    fn an_unknown_condition_of_an_acceptance_leaves_a_doubt() {
        let text = "-P FORWARD DROP\n-A FORWARD -m set --match-set hosts src -j ACCEPT\n";
        assert!(matches!(fate(text, FORWARD, true), Fate::MayStop(_)));
        // A rule against some addresses says nothing about ordinary ones.
        let text = "-P FORWARD ACCEPT\n-A FORWARD -m set --match-set bad src -j DROP\n";
        assert_eq!(fate(text, FORWARD, true), Fate::Passes);
    }

    #[test]
    fn rejections_in_called_chains_name_the_chain() {
        let text = "-P FORWARD ACCEPT\n-N late\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\n\
            -A FORWARD -j late\n-A late -j REJECT --reject-with icmp-port-unreachable\n";
        assert_eq!(fate(text, FORWARD, true), stopped("late", "reject"));
        assert_eq!(fate(text, FORWARD, false), Fate::Passes);
    }

    #[test]
    fn translation_before_our_chain_is_found_and_behind_it_is_not() {
        const POST: (&str, Place) = ("POSTROUTING", Place::Translation);
        let before = "-P POSTROUTING ACCEPT\n-N TRAILBLAZER-POST\n\
            -A POSTROUTING -o pub -j SNAT --to-source 198.51.100.7\n\
            -A POSTROUTING -j TRAILBLAZER-POST\n";
        assert!(matches!(
            fate(before, POST, true),
            Fate::Translated(Some(to), _) if to.to_string() == "198.51.100.7"
        ));
        let behind = "-P POSTROUTING ACCEPT\n-N TRAILBLAZER-POST\n\
            -A POSTROUTING -j TRAILBLAZER-POST\n\
            -A POSTROUTING -o pub -j MASQUERADE\n";
        assert_eq!(fate(behind, POST, true), Fate::Passes);
        let docker =
            "-P POSTROUTING ACCEPT\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n";
        assert_eq!(fate(docker, POST, true), Fate::Passes);
    }
}
