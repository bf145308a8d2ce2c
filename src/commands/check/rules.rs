//! Policy rules of others, as far as they and ours take packets from each other.

use super::finding::Findings;
use crate::desired::{DesiredState, EgressPath};
use crate::objects::{Rule, RuleAction};
use crate::ownership::Ownership;
use crate::plan::text::rule_text;
use crate::reconcile::View;
use crate::types::{Family, Priority};

/// The kernel's own rule for the main table (`fib_default_rules_init`, net/ipv4/fib_rules.c).
const MAIN: Priority = Priority(32_766);

pub(super) fn all(view: &View, desired: Option<&DesiredState>, findings: &mut Findings) {
    let name = "rules";
    let rules = &view.observed.rules;
    for family in Family::ALL {
        let of_family: Vec<&Rule> = rules.iter().filter(|rule| rule.family == family).collect();
        if of_family.is_empty() {
            continue;
        }
        let before: Vec<&&Rule> = of_family
            .iter()
            .filter(|rule| view.ownership.is_passed_by(rule))
            .collect();
        let closes =
            desired.is_some_and(|desired| desired.paths.get(family).egress != EgressPath::Main);
        let behind: Vec<&&Rule> = of_family
            .iter()
            .filter(|rule| closes && lies_behind(rule, &view.ownership))
            .collect();
        if before.is_empty() && behind.is_empty() {
            findings.ok(
                name,
                format!("{family}: nobody's rules take packets past ours or stand behind them"),
            );
        }
        for rule in before {
            findings.warn(
                name,
                format!(
                    "{family}: foreign rule {} comes before ours and takes what it matches past them: {}",
                    rule.priority,
                    rule_text(rule)
                ),
                "right for addresses of further interfaces, for pods and for VPNs; else remove it",
            );
        }
        for rule in behind {
            findings.warn(
                name,
                format!(
                    "{family}: foreign rule {} stands behind ours, where table {} leaves it nothing but private destinations and connections from outside: {}",
                    rule.priority,
                    view.ownership.current.egress_table,
                    rule_text(rule)
                ),
                format!(
                    "give it a priority below {} if it shall count",
                    view.ownership.current.priority
                ),
            );
        }
    }
}

fn lies_behind(rule: &Rule, ownership: &Ownership) -> bool {
    !ownership.owns_rule(rule)
        && rule.priority > ownership.current.landing()
        && rule.priority < MAIN
        && rule.action != RuleAction::Nop
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::Numbers;
    use crate::types::TableId;
    use crate::types::{Mark, Protocol};

    fn rule(priority: u32, action: RuleAction) -> Rule {
        Rule {
            family: Family::Ipv4,
            priority: Priority(priority),
            iif: None,
            mark: Some(Mark {
                value: 0x80,
                mask: 0x80,
            }),
            foreign_selectors: Vec::new(),
            action,
            protocol: Protocol(3),
        }
    }

    fn lookup(table: u32, suppress_prefixlength: Option<u32>) -> RuleAction {
        RuleAction::Lookup {
            table: TableId(table),
            suppress_prefixlength,
        }
    }

    #[test]
    fn who_takes_packets_past_us() {
        let ownership = Ownership::new(Numbers::default(), []);
        let takes = |rule: &Rule| ownership.is_passed_by(rule);
        assert!(!takes(&rule(0, lookup(255, None))));
        assert!(takes(&rule(1024, lookup(254, None))));
        assert!(takes(&rule(10_001, lookup(1001, None))));
        assert!(!takes(&rule(1024, lookup(254, Some(0)))));
        assert!(takes(&rule(5000, RuleAction::Other(7))));
        assert!(takes(&rule(5000, RuleAction::Goto(Priority(32_000)))));
        assert!(!takes(&rule(5000, RuleAction::Goto(Priority(20_000)))));
        assert!(!takes(&rule(5000, RuleAction::Nop)));
        assert!(!takes(&rule(32_000, lookup(99, None))));
        let mut ours = rule(30_000, lookup(1083, None));
        ours.protocol = Protocol(83);
        assert!(!takes(&ours));
    }

    #[test]
    fn who_stands_behind_us() {
        let ownership = Ownership::new(Numbers::default(), []);
        let behind = |priority| lies_behind(&rule(priority, lookup(52, None)), &ownership);
        assert!(behind(30_100) && behind(32_765));
        assert!(!behind(30_099) && !behind(32_766) && !behind(32_767) && !behind(5_270));
    }
}
