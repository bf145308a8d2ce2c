//! The parts of our rules, whose price shows when they are left out.

use super::contenders::{Firewall, Role};
use super::scene::nft;
use super::{Res, arena};

/// A part of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The purpose, in the table.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Chains of a table of nf_tables.
    Chains(&'static str, &'static [&'static str]),
    /// A chain of the table mangle of iptables.
    Mangle(&'static str),
    /// The policies of the kernel's IPsec.
    Policies,
    /// The policy rules, by their protocol.
    PolicyRules,
}

const OWN: &str = "trailblazer";
/// The table beside iptables.
const BESIDE: &str = "trailblazer-guard";

const fn chains(name: &'static str, table: &'static str, chains: &'static [&'static str]) -> Part {
    let kind = Kind::Chains(table, chains);
    Part { name, kind }
}

const fn mangle(name: &'static str, chain: &'static str) -> Part {
    let kind = Kind::Mangle(chain);
    Part { name, kind }
}

const POLICIES: Part = Part {
    name: "forward policies",
    kind: Kind::Policies,
};

const POLICY_RULES: Part = Part {
    name: "policy rules",
    kind: Kind::PolicyRules,
};

/// The parts in the order in which they are left out. A part whose packets another part would drop
/// otherwise comes after the other part.
pub fn of(role: Role, firewall: Firewall) -> Vec<Part> {
    match (role, firewall) {
        (Role::Host, Firewall::Nftables) => vec![
            chains("look at displaced flows (output)", OWN, &["output"]),
            chains("closed egress (closed)", OWN, &["closed"]),
            chains("flow marks, counters (count)", OWN, &["count"]),
            chains(
                "flows from outside, answers (prerouting)",
                OWN,
                &["prerouting", "ended"],
            ),
            POLICY_RULES,
        ],
        (Role::Host, Firewall::Iptables) => vec![
            chains(
                "look at displaced flows (output-pin)",
                BESIDE,
                &["output-pin"],
            ),
            chains("closed egress (closed)", BESIDE, &["closed"]),
            chains("flow marks (postrouting-pin)", BESIDE, &["postrouting-pin"]),
            chains(
                "answers (prerouting-pin)",
                BESIDE,
                &["prerouting-pin", "ended"],
            ),
            mangle("counters (mangle POSTROUTING)", "POSTROUTING"),
            mangle("flows from outside (mangle OUTPUT)", "OUTPUT"),
            mangle("flows from outside (mangle PREROUTING)", "PREROUTING"),
            POLICY_RULES,
        ],
        (Role::Nat, Firewall::Nftables) => vec![
            POLICIES,
            chains(
                "marks for paths and policies",
                OWN,
                &["prerouting-mark", "forward-unmark"],
            ),
            chains("last look (last)", OWN, &["last"]),
            chains("untracked packets (guard)", OWN, &["guard"]),
            chains("flow marks, counters (count)", OWN, &["count"]),
            chains(
                "flows from outside, answers (prerouting)",
                OWN,
                &["prerouting"],
            ),
            POLICY_RULES,
        ],
        (Role::Nat, Firewall::Iptables) => vec![
            POLICIES,
            chains(
                "marks for paths and policies",
                BESIDE,
                &["prerouting-mark", "forward-unmark"],
            ),
            chains("last look (last)", BESIDE, &["last"]),
            mangle(
                "untracked packets, counters (mangle POSTROUTING)",
                "POSTROUTING",
            ),
            mangle("flows from outside (mangle PREROUTING)", "PREROUTING"),
            POLICY_RULES,
        ],
    }
}

impl Part {
    /// Takes the part away in the namespace of the thread.
    pub fn remove(&self) -> Res<()> {
        match self.kind {
            Kind::Chains(table, chains) => {
                let chain = |chain: &&str| {
                    format!("flush chain inet {table} {chain}\ndelete chain inet {table} {chain}\n")
                };
                nft(&chains.iter().map(chain).collect::<String>())
            }
            Kind::Mangle(chain) => ["iptables", "ip6tables"]
                .into_iter()
                .try_for_each(|tool| arena::command(tool, &["-t", "mangle", "-F", chain])),
            Kind::Policies => arena::command("ip", &["xfrm", "policy", "flush"]),
            Kind::PolicyRules => ["-4", "-6"].into_iter().try_for_each(|family| {
                arena::command("ip", &[family, "rule", "flush", "protocol", "83"])
            }),
        }
    }
}
