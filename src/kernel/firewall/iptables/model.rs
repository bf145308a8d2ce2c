//! Our objects in iptables as a value: chains, rules, and the jumps from built-in chains.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::{self, ChainRule};
use crate::firewall::{Hook, Path, Traffic};
use crate::types::Family;

/// The prefix of all our chain names.
pub const PREFIX: &str = "TRAILBLAZER-";

/// The chain of [`Hook::PostroutingGuard`].
pub const GUARD_CHAIN: &str = "TRAILBLAZER-GUARD";

/// The chain of [`Hook::PostroutingClosed`], whose jump comes before the others.
pub const CLOSED_CHAIN: &str = "TRAILBLAZER-CLOSED";

/// The comment on our jumps from built-in chains: the mark of ownership.
pub const JUMP_COMMENT: &str = "trailblazer";

/// The comment on the first rule of each of our chains, the mark of ownership of a chain. The rule
/// has no other effect.
pub const CHAIN_COMMENT: &str = "trailblazer: managed, do not edit";

/// The comment on a counting rule, the key to find the count in a later reading.
pub fn count_comment(path: Path, hook: Hook) -> String {
    let way = match hook {
        Hook::Prerouting => "in",
        _ => "out",
    };
    format!("{COUNT_COMMENT}{}, {way}", path.as_str())
}

const COUNT_COMMENT: &str = "trailblazer counts: ";

/// The comment and the path of a counting rule; `None` for other rules.
pub fn counting(text: &str) -> Option<(String, Path)> {
    rule::comments(text).into_iter().find_map(|comment| {
        let (path, _) = comment.strip_prefix(COUNT_COMMENT)?.split_once(", ")?;
        let path = Path::ALL.into_iter().find(|p| p.as_str() == path)?;
        Some((comment, path))
    })
}

/// A jump of ours in a built-in chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    pub from: String,
    /// Counted from 1.
    pub position: usize,
    pub rule: ChainRule,
}

/// Our objects in one table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnTable {
    pub chains: BTreeMap<String, Vec<ChainRule>>,
    /// Ordered by chain and position.
    pub jumps: Vec<Jump>,
}

impl OwnTable {
    /// True without chains and jumps.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// The jumps for a comparison, without positions (see
    /// [`super::IptablesBackend::jumps_behind_others`]).
    pub fn jump_texts(&self) -> Vec<(&str, &str)> {
        let mut texts: Vec<_> = self
            .jumps
            .iter()
            .map(|jump| (jump.from.as_str(), jump.rule.canonical.as_str()))
            .collect();
        texts.sort_unstable();
        texts
    }

    /// The number of foreign rules before a jump of ours in the built-in chain.
    pub fn foreign_before(&self, jump: &Jump) -> usize {
        let ours = self.jumps.iter();
        let ours = ours.filter(|other| other.from == jump.from && other.position < jump.position);
        jump.position.saturating_sub(1 + ours.count())
    }

    /// The traffic of the counting rule with this comment.
    pub fn counted(&self, comment: &str) -> Option<Traffic> {
        let rules = self.chains.values().flatten();
        let mut found = rules.filter(|rule| {
            rule.counted.is_some() && rule::comments(&rule.raw).iter().any(|c| c == comment)
        });
        found.next()?.counted
    }

    /// True if chains, rules and jumps are equal in canonical text.
    pub fn same_as(&self, other: &OwnTable) -> bool {
        let rules = |table: &OwnTable| -> Vec<(String, Vec<String>)> {
            let texts =
                |rules: &Vec<ChainRule>| rules.iter().map(|r| r.canonical.clone()).collect();
            table
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), texts(chain)))
                .collect()
        };
        self.jump_texts() == other.jump_texts() && rules(self) == rules(other)
    }
}

/// Our objects in one family, by table, with one transaction per table (see
/// [`super::order::in_order`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Own(pub BTreeMap<String, OwnTable>);

impl Own {
    /// True without chains and jumps.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(OwnTable::is_empty)
    }

    /// The sums of all counting rules by path; `None` without counting rules.
    pub fn traffic(&self) -> Option<BTreeMap<Path, Traffic>> {
        let mut sum: Option<BTreeMap<Path, Traffic>> = None;
        for rule in self
            .0
            .values()
            .flat_map(|own| own.chains.values())
            .flatten()
        {
            if let Some((counted, (_, path))) = rule.counted.zip(counting(&rule.raw)) {
                *sum.get_or_insert_default().entry(path).or_default() += counted;
            }
        }
        sum
    }

    /// Canonical text for plans and comparisons; each line is a valid command.
    pub fn text(&self, family: Family) -> Vec<String> {
        let tool = command(family);
        let mut lines = Vec::new();
        for (table, own) in &self.0 {
            for (name, rules) in &own.chains {
                lines.push(format!("{tool} -t {table} -N {name}"));
                for rule in rules {
                    lines.push(format!("{tool} -t {table} -A {name} {}", rule.canonical));
                }
            }
            for (from, rule) in own.jump_texts() {
                // Without the position: foreign rules before our jump are not drift.
                lines.push(format!("{tool} -t {table} -I {from} {rule}"));
            }
        }
        lines
    }
}

/// `iptables` or `ip6tables`.
pub fn command(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    }
}

/// Table, built-in chain and chain of ours for a hook; `None` for a hook that iptables lacks.
pub fn place(hook: Hook) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match hook {
        Hook::Prerouting => ("mangle", "PREROUTING", "TRAILBLAZER-PRE"),
        Hook::OutputReroute => ("mangle", "OUTPUT", "TRAILBLAZER-OUT"),
        Hook::Forward => ("mangle", "FORWARD", "TRAILBLAZER-FWD"),
        Hook::PostroutingClosed => ("mangle", "POSTROUTING", CLOSED_CHAIN),
        Hook::PostroutingCount => ("mangle", "POSTROUTING", "TRAILBLAZER-COUNT"),
        Hook::PostroutingNat => ("nat", "POSTROUTING", "TRAILBLAZER-POST"),
        Hook::PostroutingGuard => ("mangle", "POSTROUTING", GUARD_CHAIN),
        Hook::PreroutingPin
        | Hook::PreroutingMark
        | Hook::ForwardUnmark
        | Hook::ForwardEnded
        | Hook::OutputPin
        | Hook::PostroutingPin
        | Hook::PostroutingLast => return None,
    })
}
