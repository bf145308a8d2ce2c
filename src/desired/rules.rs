//! The policy rules that both roles have.

use crate::objects::{Rule, RuleAction};
use crate::ownership::Numbers;
use crate::types::{Family, Priority, TableId};

/// A rule of ours without selectors.
pub(super) fn rule(numbers: &Numbers, family: Family, place: u32, action: RuleAction) -> Rule {
    Rule {
        family,
        priority: Priority(numbers.priority.0 + place),
        iif: None,
        mark: None,
        foreign_selectors: Vec::new(),
        action,
        protocol: numbers.protocol,
    }
}

/// The main table without its defaults, plain or in disguise ([`Family::default_length`]): connected
/// networks and the administrator's routes take precedence.
pub(super) fn main_without_default(family: Family) -> RuleAction {
    RuleAction::Lookup {
        table: TableId::MAIN,
        suppress_prefixlength: Some(u32::from(family.default_length())),
    }
}

pub(super) fn lookup(table: TableId) -> RuleAction {
    RuleAction::Lookup {
        table,
        suppress_prefixlength: None,
    }
}

/// The target of the goto, behind our rules.
pub(super) fn landing(numbers: &Numbers, family: Family) -> Rule {
    rule(
        numbers,
        family,
        numbers.landing().0 - numbers.priority.0,
        RuleAction::Nop,
    )
}
