//! The order of the tables in one change. Pure.

use super::model::{GUARD_CHAIN, Own, OwnTable};

/// The table with the guard of earlier versions.
const FILTER: &str = "filter";
/// The table with guard and marks.
const MANGLE: &str = "mangle";
const NAT: &str = "nat";

/// The tables of a change in the order of their transactions.
///
/// `iptables-restore` commits each table by itself, and packets pass between two commits. A guard
/// goes in before the translation, and before the guard of another version in another table goes
/// out. Only where the guard closes the path of all new flows, the translation goes in first, and
/// the change of the guard opens the path: a flow whose first packet passes in between would stay
/// untranslated.
pub(super) fn in_order<'a>(from: &'a Own, to: &'a Own) -> Vec<&'a String> {
    let opens = from.0.values().any(closes) && gains_translation(from, to);
    let place = |table: &str| match table {
        FILTER if !to.0.contains_key(FILTER) => 3,
        MANGLE if opens => 2,
        NAT => 1,
        _ => 0,
    };
    let mut tables: Vec<&String> = from.0.keys().chain(to.0.keys()).collect();
    tables.sort_unstable_by_key(|table| (place(table), *table));
    tables.dedup();
    tables
}

/// True if the guard drops new flows.
fn closes(table: &OwnTable) -> bool {
    let mut names = vec![GUARD_CHAIN];
    let mut seen = 0;
    while let Some(name) = names.get(seen).copied() {
        seen += 1;
        for rule in table.chains.get(name).into_iter().flatten() {
            let target = ["-j ", "-g "].iter().find_map(|option| {
                let (_, rest) = rule.canonical.split_once(option)?;
                rest.split(' ').next()
            });
            if rule.canonical.contains("--ctstate NEW") {
                return true;
            }
            names.extend(target.filter(|target| !names.contains(target)));
        }
    }
    false
}

/// True if `to` has a translating rule that `from` lacks.
fn gains_translation(from: &Own, to: &Own) -> bool {
    let translating = |own: &Own| -> Vec<String> {
        let chains = own.0.get(NAT).map(|table| table.chains.values());
        let rules = chains.into_iter().flatten().flatten();
        rules
            .map(|rule| rule.canonical.clone())
            .filter(|rule| rule.contains("-j SNAT") || rule.contains("-j MASQUERADE"))
            .collect()
    };
    let known = translating(from);
    translating(to).iter().any(|rule| !known.contains(rule))
}

#[cfg(test)]
mod tests {
    use super::super::model::OwnTable;
    use super::super::rule::ChainRule;
    use super::*;

    const NEW: &str = "-m conntrack --ctstate NEW -j TRAILBLAZER-SET1";
    const INVALID: &str = "-m conntrack --ctstate INVALID,UNTRACKED -j TRAILBLAZER-SET1";
    const SNAT: &str = "-j SNAT --to-source 198.51.100.5";

    fn own(tables: &[(&str, &str, &str)]) -> Own {
        let mut own = Own::default();
        for (table, chain, rule) in tables {
            let table: &mut OwnTable = own.0.entry((*table).to_owned()).or_default();
            let rules = table.chains.entry((*chain).to_owned()).or_default();
            rules.push(ChainRule::parse(rule));
        }
        own
    }

    #[test]
    fn path_is_never_open_between_two_tables() {
        let mark = ("mangle", "TRAILBLAZER-PRE", NEW);
        let snat = ("nat", "TRAILBLAZER-POST", SNAT);
        let guard = |table, rule| (table, GUARD_CHAIN, rule);
        let closed = own(&[mark, guard("mangle", NEW)]);
        let closed_behind_list = own(&[
            mark,
            guard("mangle", "-g TRAILBLAZER-REST1"),
            ("mangle", "TRAILBLAZER-REST1", NEW),
        ]);
        let translated = own(&[mark, guard("mangle", INVALID), snat]);
        let nothing = Own::default();
        for (from, to, order) in [
            (&closed, &translated, ["nat", "mangle"]),
            (&closed_behind_list, &translated, ["nat", "mangle"]),
            (&translated, &closed, ["mangle", "nat"]),
            (&translated, &translated, ["mangle", "nat"]),
            (&nothing, &translated, ["mangle", "nat"]),
            (&translated, &nothing, ["mangle", "nat"]),
        ] {
            assert_eq!(in_order(from, to), order);
        }
    }

    #[test]
    fn guard_of_another_version_goes_out_after_ours_is_in() {
        let mark = ("mangle", "TRAILBLAZER-PRE", NEW);
        let snat = ("nat", "TRAILBLAZER-POST", SNAT);
        let old = own(&[("filter", GUARD_CHAIN, INVALID), mark, snat]);
        let new = own(&[mark, ("mangle", GUARD_CHAIN, INVALID), snat]);
        assert_eq!(in_order(&old, &new), ["mangle", "nat", "filter"]);
        assert_eq!(in_order(&new, &old), ["filter", "mangle", "nat"]);
        let old_closed = own(&[("filter", GUARD_CHAIN, NEW), mark]);
        assert_eq!(in_order(&old_closed, &new), ["nat", "mangle", "filter"]);
    }
}
