//! Policy rules in the words of `ip rule`, so that an operator finds them there.

use crate::objects::{ForeignSelector, Rule, RuleAction};
use crate::ownership::Ownership;
use crate::types::TableId;
use crate::words::first_few;

/// The rule as `ip rule` prints it, without the priority.
pub fn rule_text(rule: &Rule) -> String {
    let (mut words, mut last) = (Vec::new(), Vec::new());
    let mut selectors = rule.foreign_selectors.iter().peekable();
    if let Some(not) = selectors.next_if_eq(&&ForeignSelector::Not) {
        words.push(not.to_string());
    }
    match selectors.next_if(|selector| matches!(selector, ForeignSelector::From(_))) {
        Some(from) => words.push(from.to_string()),
        None => words.push("from all".to_owned()),
    }
    let leading = |selector: &&ForeignSelector| {
        matches!(selector, ForeignSelector::To(_) | ForeignSelector::Tos(_))
    };
    while let Some(selector) = selectors.next_if(leading) {
        words.push(selector.to_string());
    }
    words.extend(rule.mark.map(|mark| match mark.mask {
        u32::MAX => format!("fwmark {:#x}", mark.value),
        _ => format!("fwmark {mark}"),
    }));
    words.extend(rule.iif.as_ref().map(|name| format!("iif {name}")));
    let mut table_is_vrf = false;
    for selector in selectors {
        table_is_vrf |= *selector == ForeignSelector::VrfTable;
        let place = if selector.follows_table() {
            &mut last
        } else {
            &mut words
        };
        place.push(selector.to_string());
    }
    match rule.action {
        RuleAction::Lookup {
            table,
            suppress_prefixlength,
        } => {
            if !table_is_vrf {
                words.push(format!("lookup {}", table_text(table)));
            }
            words.extend(
                suppress_prefixlength.map(|length| format!("suppress_prefixlength {length}")),
            );
        }
        RuleAction::Goto(target) => words.push(format!("goto {target}")),
        RuleAction::Nop => words.push("nop".to_owned()),
        RuleAction::Other(number) => last.push(action_text(number)),
    }
    words.append(&mut last);
    words.join(" ")
}

/// The table's name in iproute2's rt_tables, or the number.
fn table_text(table: TableId) -> String {
    match table {
        TableId::MAIN => "main".to_owned(),
        TableId::LOCAL => "local".to_owned(),
        TableId::DEFAULT => "default".to_owned(),
        other => other.to_string(),
    }
}

/// Names policy rules with our protocol number but without our priorities: a config with other
/// numbers and another state dir was in force, and its rules still steer packets.
pub fn orphaned_rules(rules: &[Rule], ownership: &Ownership) -> Option<String> {
    const NAMED: usize = 3;
    let orphans = rules.iter().filter(|rule| ownership.is_orphan(rule));
    let named =
        orphans.map(|rule| format!("{} {}: {}", rule.family, rule.priority, rule_text(rule)));
    let named = first_few(named, NAMED, "; ");
    (!named.is_empty()).then(|| {
        format!(
            "policy rules of another config remain, with Trailblazer's protocol number and unknown priorities ({named})"
        )
    })
}

/// The actions that reject (`FR_ACT_*`, linux/fib_rules.h).
fn action_text(number: u8) -> String {
    match number {
        6 => "blackhole".to_owned(),
        7 => "unreachable".to_owned(),
        8 => "prohibit".to_owned(),
        other => format!("action {other}"),
    }
}
