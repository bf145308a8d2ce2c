//! What is ours inside iptables, as a value: chains, their rules, and the jumps into them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::{self, Rule};
use crate::firewall::{Hook, Path, Traffic};
use crate::types::Family;

/// Every chain of ours has a name that begins with this.
pub const PREFIX: &str = "TRAILBLAZER-";

/// The comment on our jumps from built-in chains: the mark of ownership.
pub const JUMP_COMMENT: &str = "trailblazer";

/// The comment on the first rule of each of our chains, a rule that does nothing: the chain
/// itself says whose it is.
pub const CHAIN_COMMENT: &str = "trailblazer: managed, do not edit";

/// The comment on a rule that counts: by it the count is found again.
pub fn count_comment(path: Path, hook: Hook) -> String {
    let way = match hook {
        Hook::Prerouting => "in",
        _ => "out",
    };
    format!("{COUNT_COMMENT}{}, {way}", path.as_str())
}

const COUNT_COMMENT: &str = "trailblazer counts: ";

/// The comment of a rule that counts, and for which path.
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
    /// The built-in chain.
    pub from: String,
    /// Its place there, counted from 1.
    pub position: usize,
    /// The rule.
    pub rule: Rule,
}

/// What is ours in one table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnTable {
    /// Our chains with their rules.
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// Our jumps, ordered by chain and position.
    pub jumps: Vec<Jump>,
}

impl OwnTable {
    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// The jumps as far as they are compared: their positions are not (see
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

    /// What a rule that counts has counted, by its comment.
    pub fn counted(&self, comment: &str) -> Option<Traffic> {
        let rules = self.chains.values().flatten();
        let mut found = rules.filter(|rule| {
            rule.counted.is_some() && rule::comments(&rule.raw).iter().any(|c| c == comment)
        });
        found.next()?.counted
    }

    /// Whether both hold the same in our spelling.
    pub fn same_as(&self, other: &OwnTable) -> bool {
        let rules = |table: &OwnTable| -> Vec<(String, Vec<String>)> {
            let texts = |rules: &Vec<Rule>| rules.iter().map(|r| r.canonical.clone()).collect();
            table
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), texts(chain)))
                .collect()
        };
        self.jump_texts() == other.jump_texts() && rules(self) == rules(other)
    }
}

/// What is ours in one family, by table. The order of the map (filter, mangle, nat) is the order
/// of the transactions, one a table: the guard and the marks lie there before the translation
/// that builds on them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Own(pub BTreeMap<String, OwnTable>);

impl Own {
    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(OwnTable::is_empty)
    }

    /// What the rules that count have counted, by path; none without such a rule.
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

    /// The lines for plans and comparisons, each a command that a person could type.
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
                // Without a position: a jump that others have pushed down is not drift.
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

/// Where a hook lies in iptables: table, built-in chain, our chain.
pub fn place(hook: Hook) -> (&'static str, &'static str, &'static str) {
    match hook {
        Hook::Prerouting => ("mangle", "PREROUTING", "TRAILBLAZER-PRE"),
        Hook::OutputReroute => ("mangle", "OUTPUT", "TRAILBLAZER-OUT"),
        Hook::PostroutingCount => ("mangle", "POSTROUTING", "TRAILBLAZER-COUNT"),
        Hook::PostroutingNat => ("nat", "POSTROUTING", "TRAILBLAZER-POST"),
        Hook::PostroutingGuard => ("filter", "FORWARD", "TRAILBLAZER-GUARD"),
    }
}
