//! The bypass paths that an earlier agent has found down.

use super::view::View;
use crate::health::WayId;
use crate::objects::RuleAction;
use crate::types::Family;

impl View {
    /// Forgets the verdict of an earlier agent about a bypass path, unless the kernel still has its routes and
    /// no rule that leads there: after a reboot or `flush` the verdict says nothing.
    pub(super) fn confirm_diversions(&mut self) {
        let prefixes = self.kernel_prefixes();
        let leads = |family: Family| {
            self.observed.rules.iter().any(|rule| {
                let to = match rule.action {
                    RuleAction::Lookup { table, .. } => self.ownership.is_bypass_table(table),
                    _ => false,
                };
                // Rules with a mark lead the firewall's look-ups alone.
                let plain = rule.family == family && rule.mark.is_none();
                plain && to && self.ownership.owns_rule(rule)
            })
        };
        let is_diverted = |family: Family| !prefixes.get(family).is_empty() && !leads(family);
        let used = Family::ALL.into_iter().filter(|it| !is_diverted(*it));
        let used: Vec<WayId> = used.map(WayId::Bypass).collect();
        self.health = std::mem::take(&mut self.health).with_use_of(used);
    }
}
