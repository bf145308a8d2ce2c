//! Foreign policy rules that interfere with ours, or ours with them.

use super::report::CheckReport;
use crate::desired::{DesiredState, EgressPath};
use crate::judge::{Promise, deciding};
use crate::objects::{Rule, RuleAction};
use crate::ownership::Ownership;
use crate::plan::rule_text::{orphaned_rules, rule_text};
use crate::reconcile::View;
use crate::types::{Family, Priority, TableId};

pub(super) fn all(view: &View, desired: &DesiredState, report: &mut CheckReport) {
    let name = "rules";
    let rules = &view.observed.rules;
    if let Some(text) = orphaned_rules(rules, &view.ownership) {
        report.warn(name, text, "run flush with -c and that config");
    }
    for family in Family::ALL {
        let of_family: Vec<&Rule> = rules.iter().filter(|rule| rule.family == family).collect();
        if of_family.is_empty() {
            continue;
        }
        let before: Vec<&&Rule> = of_family
            .iter()
            .filter(|rule| {
                view.ownership.is_passed_by(rule) || lies_between(rule, &view.promise(desired))
            })
            .collect();
        let closes = desired.paths.get(family).egress != EgressPath::Main;
        let behind: Vec<&&Rule> = of_family
            .iter()
            .filter(|rule| closes && lies_behind(rule, &view.ownership))
            .collect();
        if before.is_empty() && behind.is_empty() {
            report.ok(name, format!("{family}: no other policy rules interfere"));
        }
        for rule in before {
            report.warn(
                name,
                format!(
                    "{family}: foreign rule {} precedes Trailblazer's rules, so packets that match the foreign rule never reach them: {}",
                    rule.priority,
                    rule_text(rule)
                ),
                "intended for addresses of further interfaces, for pods and for VPNs; otherwise remove the rule",
            );
        }
        for rule in behind {
            report.warn(
                name,
                format!(
                    "{family}: foreign rule {} follows Trailblazer's rules and sees only private destinations and connections from outside, since table {} handles all other packets: {}",
                    rule.priority,
                    view.ownership.current.egress_table,
                    rule_text(rule)
                ),
                format!(
                    "to make the rule effective, give it a priority below {}",
                    view.ownership.current.priority
                ),
            );
        }
    }
}

/// True for a foreign rule among ours, before the last one that leads to a path.
fn lies_between(rule: &Rule, promise: &Promise<'_>) -> bool {
    !promise.ownership.owns_rule(rule)
        && rule.action != RuleAction::Nop
        && rule.priority >= promise.numbers().priority
        && deciding(promise, rule.family).is_some_and(|last| rule.priority <= last)
}

fn lies_behind(rule: &Rule, ownership: &Ownership) -> bool {
    !ownership.owns_rule(rule)
        && rule.priority > ownership.current.landing()
        && rule.priority < Priority::MAIN
        && rule.action != RuleAction::Nop
        && !is_mains_own(rule)
}

/// The kernel's rule for the main table, which somebody moved. Everything without a path of ours
/// depends on the rule, so advice to move it to the front would defeat ours.
fn is_mains_own(rule: &Rule) -> bool {
    let leads_to_main = RuleAction::Lookup {
        table: TableId::MAIN,
        suppress_prefixlength: None,
    };
    let selects = rule.iif.is_some() || rule.mark.is_some() || !rule.foreign_selectors.is_empty();
    rule.action == leads_to_main && !selects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::Numbers;
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
    fn foreign_rules_ahead_of_ours_divert_packets() {
        let ownership = Ownership::new(Numbers::default(), []);
        let diverts = |rule: &Rule| ownership.is_passed_by(rule);
        assert!(!diverts(&rule(0, lookup(255, None))));
        assert!(diverts(&rule(1024, lookup(254, None))));
        assert!(diverts(&rule(10_001, lookup(1001, None))));
        assert!(!diverts(&rule(1024, lookup(254, Some(0)))));
        assert!(diverts(&rule(5000, RuleAction::Other(7))));
        assert!(diverts(&rule(5000, RuleAction::Goto(Priority(32_000)))));
        assert!(!diverts(&rule(5000, RuleAction::Goto(Priority(20_000)))));
        assert!(!diverts(&rule(5000, RuleAction::Nop)));
        assert!(!diverts(&rule(32_000, lookup(99, None))));
        let mut ours = rule(30_000, lookup(1083, None));
        ours.protocol = Protocol(83);
        assert!(!diverts(&ours));
    }

    #[test]
    fn the_main_rule_behind_ours_gets_no_advice() {
        let ownership = Ownership::new(Numbers::default(), []);
        let mut main = rule(32_700, lookup(254, None));
        main.mark = None;
        assert!(!lies_behind(&main, &ownership));
        main.iif = Some("eth1".to_owned());
        assert!(lies_behind(&main, &ownership));
    }

    #[test]
    fn rules_between_ours_and_the_main_table_lie_behind() {
        let ownership = Ownership::new(Numbers::default(), []);
        let behind = |priority| lies_behind(&rule(priority, lookup(52, None)), &ownership);
        assert!(behind(30_100) && behind(32_765));
        assert!(!behind(30_099) && !behind(32_766) && !behind(32_767) && !behind(5_270));
    }
}
