//! Computes the input of `iptables-restore --noflush` from present and desired rules. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{CHAIN_COMMENT, Jump, Own, OwnTable, counting};
use super::order::in_order;
use super::rule::ChainRule;
use super::save::Saved;

/// The input to change a family from `current` to `target`; empty if both are equal.
///
/// `:CHAIN - [0:0]` creates or empties one chain and leaves the other chains of the table unchanged.
/// A chain with counting rules is edited around these rules instead. Each table is one transaction,
/// from `*table` to `COMMIT`.
pub fn script(current: &Saved, target: &Own) -> String {
    let nothing = OwnTable::default();
    let mut text = String::new();
    for table in in_order(&current.own, target) {
        let from = current.own.0.get(table).unwrap_or(&nothing);
        let to = target.0.get(table).unwrap_or(&nothing);
        if !from.same_as(to) {
            write_table(&mut text, table, from, to, current);
        }
    }
    text
}

fn write_table(text: &mut String, table: &str, from: &OwnTable, to: &OwnTable, current: &Saved) {
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    line(&format!("*{table}"));
    // Stale chains are emptied too: the kernel deletes a chain only without references.
    let mut chains: Vec<&String> = from.chains.keys().chain(to.chains.keys()).collect();
    chains.sort_unstable();
    chains.dedup();
    let edits: BTreeMap<&String, Vec<String>> = to
        .chains
        .iter()
        .filter_map(|(chain, rules)| Some((chain, edited(chain, from, rules)?)))
        .collect();
    for chain in chains.iter().filter(|chain| !edits.contains_key(*chain)) {
        line(&format!(":{chain} - [0:0]"));
    }
    let keep_jumps = from.jump_texts() == to.jump_texts();
    if !keep_jumps {
        for jump in &from.jumps {
            line(&format!("-D {} {}", jump.from, jump.rule.raw));
        }
    }
    for (chain, rules) in &to.chains {
        match edits.get(chain) {
            Some(lines) => lines.iter().for_each(|edit| line(edit)),
            None => rules
                .iter()
                .for_each(|rule| line(&format!("-A {chain} {}", carried_on(rule, from)))),
        }
    }
    if !keep_jumps {
        for (position, jump) in insertions(table, from, to, current) {
            line(&format!("-I {} {position} {}", jump.from, jump.rule.raw));
        }
    }
    for chain in chains {
        if to.chains.contains_key(chain) {
            continue;
        }
        if is_referenced(table, chain, current) {
            // The kernel would refuse to delete a chain with references, and so the whole table.
            // With only the marker the chain has no effect; the caller reports the reference.
            line(&format!("-A {chain} {}", marker()));
        } else {
            line(&format!("-X {chain}"));
        }
    }
    line("COMMIT");
}

/// The rule as input for the tool. A counting rule starts with the present count, else with the
/// count of the reading for the rollback.
///
/// ip6tables of the nft variant accepts the count but ignores the number (observed with 1.8.9; IPv4
/// and the legacy variant don't). So [`edited`], which keeps counting rules, is preferred.
fn carried_on(rule: &ChainRule, now: &OwnTable) -> String {
    let known = counting(&rule.raw)
        .and_then(|(comment, _)| now.counted(&comment))
        .or(rule.counted);
    match known {
        Some(known) => format!("-c {} {} {}", known.packets, known.bytes, rule.to_feed()),
        None => rule.to_feed().to_owned(),
    }
}

/// Edits a chain around the counting rules, which stay in place and keep their counts. `None` if
/// the chain has no counting rules to keep, or if other rules lie between them in `to`.
fn edited(chain: &str, now: &OwnTable, to: &[ChainRule]) -> Option<Vec<String>> {
    let from = now.chains.get(chain)?;
    let mut kept: Vec<usize> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    for (place, rule) in to.iter().enumerate() {
        let later = kept.last().map_or(0, |last| last + 1);
        let same = |at: &usize| from.get(*at).is_some_and(|r| r.canonical == rule.canonical);
        if counting(&rule.raw).is_some()
            && let Some(at) = (later..from.len()).find(same)
        {
            kept.push(at);
            places.push(place);
        }
    }
    let (first, last) = (*places.first()?, *places.last()?);
    if last - first + 1 != places.len() {
        return None;
    }
    let mut lines: Vec<String> = (0..from.len())
        .rev()
        .filter(|at| !kept.contains(at))
        .map(|at| format!("-D {chain} {}", at + 1))
        .collect();
    let (before, after) = (to.get(..first)?, to.get(last + 1..)?);
    let fed = |rule| carried_on(rule, now);
    lines.extend(
        before
            .iter()
            .rev()
            .map(|rule| format!("-I {chain} 1 {}", fed(rule))),
    );
    lines.extend(after.iter().map(|rule| format!("-A {chain} {}", fed(rule))));
    Some(lines)
}

/// The first rule of each of our chains.
pub fn marker() -> String {
    format!("-m comment --comment \"{CHAIN_COMMENT}\"")
}

fn is_referenced(table: &str, chain: &str, current: &Saved) -> bool {
    current
        .references
        .iter()
        .any(|reference| reference.table == table && reference.target == chain)
}

/// The jumps with a valid position for each. The position in a rollback may lie beyond the end of
/// the chain if foreign rules have gone meanwhile; the kernel would refuse such a position.
fn insertions<'a>(
    table: &str,
    from: &OwnTable,
    to: &'a OwnTable,
    current: &Saved,
) -> Vec<(usize, &'a Jump)> {
    let mut placed: Vec<(usize, &Jump)> = Vec::new();
    for jump in &to.jumps {
        let here = |other: &&Jump| other.from == jump.from;
        let length = current
            .lengths
            .get(&(table.to_owned(), jump.from.clone()))
            .copied()
            .unwrap_or(0);
        let deleted = from.jumps.iter().filter(here).count();
        let inserted = placed.iter().filter(|(_, other)| here(other)).count();
        let last = length.saturating_sub(deleted) + inserted + 1;
        placed.push((jump.position.clamp(1, last), jump));
    }
    placed
}

/// Adds the input line to a message with a line number (`line 3 failed`).
pub fn explain(message: &str, input: &str) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let number = text
        .split_once("line ")
        .or_else(|| text.split_once("line: "))
        .map(|(_, rest)| rest.trim_start_matches(|c: char| !c.is_ascii_digit()))
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse::<usize>().ok());
    let at_fault = number
        .and_then(|number| number.checked_sub(1))
        .and_then(|index| input.lines().nth(index));
    if let Some(line) = at_fault {
        // Writing to a String can't fail.
        let _ = write!(text, " (that line is `{line}`)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{rule::ChainRule, save};
    use super::*;

    fn own(jumps: &[(&str, usize)], chains: &[(&str, &[&str])]) -> Own {
        let mut table = OwnTable::default();
        for (from, position) in jumps {
            table.jumps.push(Jump {
                from: (*from).to_owned(),
                position: *position,
                rule: ChainRule::parse("-m comment --comment trailblazer -j TRAILBLAZER-POST"),
            });
        }
        for (name, rules) in chains {
            let rules = rules.iter().map(|text| ChainRule::parse(text)).collect();
            table.chains.insert((*name).to_owned(), rules);
        }
        Own([("nat".to_owned(), table)].into())
    }

    #[test]
    fn equal_rules_need_no_input() {
        assert_eq!(script(&Saved::default(), &Own::default()), "");
        let there = own(
            &[("POSTROUTING", 3)],
            &[("TRAILBLAZER-POST", &["-j RETURN"])],
        );
        let current = Saved {
            own: there,
            ..Saved::default()
        };
        let wanted = own(
            &[("POSTROUTING", 1)],
            &[("TRAILBLAZER-POST", &["-j RETURN"])],
        );
        assert_eq!(script(&current, &wanted), "");
    }

    #[test]
    fn duplicate_jumps_and_stale_chains_are_removed() {
        let current = save::parse(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:TRAILBLAZER-POST - [0:0]\n:TRAILBLAZER-OLD - [0:0]\n\
             -A POSTROUTING -m comment --comment trailblazer -j TRAILBLAZER-POST\n\
             -A POSTROUTING -j MASQUERADE\n\
             -A POSTROUTING -m comment --comment trailblazer -j TRAILBLAZER-POST\nCOMMIT\n",
        )
        .unwrap();
        let wanted = own(
            &[("POSTROUTING", 9)],
            &[("TRAILBLAZER-POST", &["-j ACCEPT"])],
        );
        assert_eq!(
            script(&current, &wanted),
            "*nat\n\
             :TRAILBLAZER-OLD - [0:0]\n\
             :TRAILBLAZER-POST - [0:0]\n\
             -D POSTROUTING -m comment --comment trailblazer -j TRAILBLAZER-POST\n\
             -D POSTROUTING -m comment --comment trailblazer -j TRAILBLAZER-POST\n\
             -A TRAILBLAZER-POST -j ACCEPT\n\
             -I POSTROUTING 2 -m comment --comment trailblazer -j TRAILBLAZER-POST\n\
             -X TRAILBLAZER-OLD\n\
             COMMIT\n"
        );
    }

    const BYPASS: &str =
        "-m connmark --mark 0x1000/0x3000 -m comment --comment \"trailblazer counts: bypass, out\"";
    const EGRESS: &str =
        "-m connmark --mark 0x2000/0x3000 -m comment --comment \"trailblazer counts: egress, out\"";

    fn counting(rules: &[&str]) -> String {
        let lines: String = rules
            .iter()
            .map(|rule| format!("[3:400] -A TRAILBLAZER-POST {rule}\n"))
            .collect();
        format!(
            "*nat\n:POSTROUTING ACCEPT [9:9]\n:TRAILBLAZER-POST - [0:0]\n\
             [1:1] -A POSTROUTING -m comment --comment trailblazer -j TRAILBLAZER-POST\n\
             {lines}COMMIT\n"
        )
    }

    #[test]
    fn counting_rules_stay_in_place() {
        let current = save::parse(&counting(&[
            "-j OLD",
            BYPASS,
            "-j STRANGER",
            EGRESS,
            "-j END",
        ]))
        .unwrap();
        let wanted = own(
            &[("POSTROUTING", 1)],
            &[(
                "TRAILBLAZER-POST",
                &["-j NEW", "-j NEWER", BYPASS, EGRESS, "-j LAST"],
            )],
        );
        assert_eq!(
            script(&current, &wanted),
            "*nat\n\
             -D TRAILBLAZER-POST 5\n\
             -D TRAILBLAZER-POST 3\n\
             -D TRAILBLAZER-POST 1\n\
             -I TRAILBLAZER-POST 1 -j NEWER\n\
             -I TRAILBLAZER-POST 1 -j NEW\n\
             -A TRAILBLAZER-POST -j LAST\n\
             COMMIT\n"
        );
    }

    #[test]
    fn changed_counting_rule_keeps_its_count() {
        let other = BYPASS.replace("0x3000", "0x3001");
        let current = save::parse(&counting(&[&other, "-j STRANGER"])).unwrap();
        let mut wanted = own(
            &[("POSTROUTING", 1)],
            &[("TRAILBLAZER-POST", &[BYPASS, EGRESS])],
        );
        // The recorded count for a counting rule missing in the kernel.
        let rules = wanted.0.values_mut().flat_map(|t| t.chains.values_mut());
        for rule in rules.flatten() {
            rule.counted = Some(crate::firewall::Traffic {
                packets: 1,
                bytes: 20,
            });
        }
        assert_eq!(
            script(&current, &wanted),
            format!(
                "*nat\n:TRAILBLAZER-POST - [0:0]\n\
                 -A TRAILBLAZER-POST -c 3 400 {BYPASS}\n\
                 -A TRAILBLAZER-POST -c 1 20 {EGRESS}\nCOMMIT\n"
            )
        );
    }

    #[test]
    fn chain_with_foreign_references_is_emptied() {
        let current = save::parse(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:TRAILBLAZER-POST - [0:0]\n\
             -A POSTROUTING -j TRAILBLAZER-POST\nCOMMIT\n",
        )
        .unwrap();
        assert_eq!(
            script(&current, &Own::default()),
            format!(
                "*nat\n:TRAILBLAZER-POST - [0:0]\n-A TRAILBLAZER-POST {}\nCOMMIT\n",
                marker()
            )
        );
    }

    #[test]
    fn messages_show_the_input_line() {
        let input = "*nat\n-A X -j Y\nCOMMIT\n";
        assert_eq!(
            explain("iptables-restore: line 2 failed\n", input),
            "iptables-restore: line 2 failed (that line is `-A X -j Y`)"
        );
        assert!(explain("Error occurred at line: 2\n", input).ends_with("`-A X -j Y`)"));
        assert_eq!(explain("odd line", input), "odd line");
    }
}
