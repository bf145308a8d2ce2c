//! The order of the tables in one change. Pure.

use super::model::Own;

const FILTER: &str = "filter";
const NAT: &str = "nat";

/// The tables of a change in the order of their transactions.
///
/// `iptables-restore` commits each table by itself, and packets pass between two commits. The rules
/// in `filter` that close an untranslated path go out after the translation in `nat` is in, and come
/// in before the translation goes out: a flow whose first packet passes in between would stay
/// untranslated.
pub(super) fn in_order<'a>(from: &'a Own, to: &'a Own) -> Vec<&'a String> {
    let mut tables: Vec<&String> = from.0.keys().chain(to.0.keys()).collect();
    let opens = from.0.contains_key(FILTER) && gains_translation(from, to);
    tables.sort_unstable_by_key(|table| (opens && *table == FILTER, *table));
    tables.dedup();
    tables
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

    fn own(tables: &[(&str, &str)]) -> Own {
        let table = |(name, rule): &(&str, &str)| {
            let rules = vec![ChainRule::parse(rule)];
            let table = OwnTable {
                chains: [("TRAILBLAZER-POST".to_owned(), rules)].into(),
                jumps: Vec::new(),
            };
            ((*name).to_owned(), table)
        };
        Own(tables.iter().map(table).collect())
    }

    #[test]
    fn path_is_never_open_between_two_tables() {
        let closed = own(&[("filter", "-j DROP"), ("mangle", "-j X")]);
        let translated = own(&[
            ("filter", "-j ACCEPT"),
            ("mangle", "-j X"),
            ("nat", "-j SNAT --to-source 198.51.100.5"),
        ]);
        let nothing = Own::default();
        for (from, to, order) in [
            (&closed, &translated, ["mangle", "nat", "filter"]),
            (&translated, &closed, ["filter", "mangle", "nat"]),
            (&translated, &translated, ["filter", "mangle", "nat"]),
            (&nothing, &translated, ["filter", "mangle", "nat"]),
        ] {
            assert_eq!(in_order(from, to), order);
        }
    }
}
