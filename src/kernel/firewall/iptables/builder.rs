//! Builds the chains of one table. Pure.
//!
//! A rule whose conditions fit becomes one iptables rule. A rule with several prefixes or several
//! exclusions goes through a chain of its own, `TRAILBLAZER-SET<n>`:
//!
//! ```text
//! -A TRAILBLAZER-POST -o eth1 -j TRAILBLAZER-SET1     the conditions that fit
//! -A TRAILBLAZER-SET1 -d 192.0.2.0/24 -j RETURN       excluded: back to the next rule
//! -A TRAILBLAZER-SET1 -d 10.0.0.0/8 -j MASQUERADE     allowed: one rule per prefix
//! ```
//!
//! If the verdict is RETURN, the packet must leave our whole chain and not only the `SET` chain. So
//! the first rule goes to the `SET` chain with `-g` instead of `-j`, and the later rules move to a
//! chain `TRAILBLAZER-REST<n>`, the target for packets without a match.

use super::conditions::{Conditions, Side, TCP_SYN};
use super::model::{CLOSED_CHAIN, JUMP_COMMENT, Jump, OwnTable};
use super::rule::ChainRule;
use super::script::marker;

/// nf_tables limits the nesting of chains to 16 (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h;
/// EMLINK beyond) and counts `-g` like `-j`. Each `SET` with a `REST` needs two levels.
pub(super) const MOST_NESTED: usize = 6;

const RETURN: &str = "-j RETURN";

/// A table under construction.
#[derive(Default)]
pub struct Builder {
    table: OwnTable,
    sets: usize,
    rests: usize,
}

impl Builder {
    /// Creates a chain with the mark of ownership.
    pub fn open(&mut self, chain: &str) {
        let rules = vec![ChainRule::parse(&marker())];
        self.table.chains.insert(chain.to_owned(), rules);
    }

    /// Adds the jump from a built-in chain, in the first place: the first nat rule to translate a flow
    /// decides. A jump to the chain `closed` stays before the others: no dropped packet marks its flow.
    pub fn hook(&mut self, builtin: &str, chain: &str) {
        let mut others = self.table.jumps.iter();
        let first =
            others.any(|jump| jump.from == builtin && jump.rule.raw.ends_with(CLOSED_CHAIN));
        self.table.jumps.push(Jump {
            from: builtin.to_owned(),
            position: if first { 2 } else { 1 },
            rule: ChainRule::spelled(&format!("-m comment --comment {JUMP_COMMENT} -j {chain}")),
        });
        self.table.jumps.sort_by(|a, b| a.from.cmp(&b.from));
    }

    fn add(&mut self, chain: &str, words: &[&str]) {
        self.table
            .chains
            .entry(chain.to_owned())
            .or_default()
            .push(ChainRule::spelled(&words.join(" ")));
    }

    /// Appends a rule to the chain `current`. `current` may change to a `REST` chain for the rules
    /// after; `nested` counts the changes.
    pub fn rule(
        &mut self,
        (current, nested): &mut (String, usize),
        mut conditions: Conditions,
        verdict: &str,
    ) -> Result<(), String> {
        let mut fitting = String::new();
        let mut lists = Lists::default();
        fit(&mut conditions.source, "-s", &mut fitting, &mut lists);
        fit(&mut conditions.destination, "-d", &mut fitting, &mut lists);
        fit(&mut conditions.input, "-i", &mut fitting, &mut lists);
        fit(&mut conditions.output, "-o", &mut fitting, &mut lists);
        if !conditions.alternatives.is_empty() {
            if !lists.any_of.is_empty() {
                return Err("two lists in one rule, of slots and of destinations".to_owned());
            }
            lists.any_of.append(&mut conditions.alternatives);
        }
        lists.none_of.append(&mut conditions.exclusions);
        for words in &conditions.matches {
            fitting.push(' ');
            fitting.push_str(words);
        }
        if lists.any_of.is_empty() && lists.none_of.is_empty() {
            self.add(current, &[&fitting, verdict]);
            return Ok(());
        }
        if verdict == RETURN && lists.none_of.is_empty() {
            // RETURN for the prefixes of a list needs no chain, only one rule per prefix.
            for condition in &lists.any_of {
                self.add(current, &[condition, &fitting, verdict]);
            }
            return Ok(());
        }
        // The rule with the target is in another chain than the conditions that fit.
        let verdict = if verdict.starts_with("-j TCPMSS") {
            format!("{TCP_SYN} {verdict}")
        } else {
            verdict.to_owned()
        };
        self.rule_with_chain((current, nested), &fitting, &lists, &verdict)
    }

    /// Appends a rule with lists, by way of a `SET` chain.
    fn rule_with_chain(
        &mut self,
        (current, nested): (&mut String, &mut usize),
        fitting: &str,
        lists: &Lists,
        verdict: &str,
    ) -> Result<(), String> {
        self.sets += 1;
        let set = format!("TRAILBLAZER-SET{}", self.sets);
        self.open(&set);
        let (enter, no_match, rest) = if verdict == RETURN {
            self.rests += 1;
            *nested += 1;
            if *nested > MOST_NESTED {
                return Err(format!(
                    "more than {MOST_NESTED} rules in a chain that accept packets outside a list: iptables chains would nest too deep"
                ));
            }
            let rest = format!("TRAILBLAZER-REST{}", self.rests);
            self.open(&rest);
            (format!("-g {set}"), format!("-g {rest}"), Some(rest))
        } else {
            (format!("-j {set}"), RETURN.to_owned(), None)
        };
        self.add(current, &[fitting, &enter]);
        for condition in &lists.none_of {
            self.add(&set, &[condition, &no_match]);
        }
        if lists.any_of.is_empty() {
            self.add(&set, &[verdict]);
        } else {
            for condition in &lists.any_of {
                self.add(&set, &[condition, verdict]);
            }
        }
        if let Some(rest) = rest {
            if !lists.any_of.is_empty() {
                self.add(&set, &[&no_match]);
            }
            self.add(current, &[&no_match]);
            *current = rest;
        }
        Ok(())
    }

    /// The finished table.
    pub fn finish(self) -> OwnTable {
        self.table
    }
}

/// Conditions beyond the capacity of one rule, each as an option. Only destinations have a list of
/// allowed values, so a rule has at most one such list.
#[derive(Default)]
struct Lists {
    any_of: Vec<String>,
    none_of: Vec<String>,
}

/// Adds the conditions of an option to the rule if possible, else to `lists`.
fn fit<T: ToString>(side: &mut Side<T>, option: &str, fitting: &mut String, lists: &mut Lists) {
    let words = |value: &T| format!("{option} {}", value.to_string());
    match side.any_of.as_deref() {
        Some([one]) => {
            fitting.push(' ');
            fitting.push_str(&words(one));
        }
        Some(several) => lists.any_of.extend(several.iter().map(words)),
        None => {
            if let [one] = side.none_of.as_slice() {
                fitting.push_str(" ! ");
                fitting.push_str(&words(one));
                return;
            }
        }
    }
    lists.none_of.extend(side.none_of.iter().map(words));
}
