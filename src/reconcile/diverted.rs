//! The bypass paths that an earlier agent has found down.

use super::view::View;
use crate::health::WayId;
use crate::types::Family;

impl View {
    /// Forgets the verdict of an earlier agent about a bypass path, unless the kernel still has its routes and
    /// no rule that leads there: after a reboot or `flush` the verdict says nothing.
    pub(super) fn confirm_diversions(&mut self) {
        let prefixes = self.kernel_prefixes();
        let leads = |family: Family| {
            let is_bypass = |table| self.ownership.is_bypass_table(table);
            let mut rules = self
                .observed
                .rules
                .iter()
                .filter(|rule| rule.family == family);
            rules.any(|rule| rule.leads_to(is_bypass) && self.ownership.owns_rule(rule))
        };
        let is_diverted = |family: Family| !prefixes.get(family).is_empty() && !leads(family);
        let used = Family::ALL.into_iter().filter(|it| !is_diverted(*it));
        let used: Vec<WayId> = used.map(WayId::Bypass).collect();
        self.health = std::mem::take(&mut self.health).with_use_of(used);
    }
}
