//! Ownership of kernel objects: a route is ours by table *and* protocol, a rule by priority *and*
//! protocol. The marks are in the objects, so a fresh process recognises ours without any memory.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::objects::{NexthopObject, Route, Rule, RuleAction};
use crate::types::{NexthopId, PIN_TABLES, PerFamily, PinMarks, Priority, Protocol, Slot, TableId};

/// The number of priorities reserved for our rules, from the first on.
pub const PRIORITY_RANGE: u32 = 100;

/// The numbers that mark our objects. Each pass stores the numbers in the state dir, so that a pass
/// with a changed config also deletes the objects under the old numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Numbers {
    pub bypass_table: TableId,
    pub egress_table: TableId,
    pub protocol: Protocol,
    pub priority: Priority,
    /// The first table of pinned flows; `None` in a config without pinned flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_tables: Option<TableId>,
    /// The marks of pinned flows; `None` in a config without pinned flows, and in the file of an
    /// earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<PinMarks>,
}

impl Numbers {
    /// The numbers of a config.
    pub fn of(config: &Config) -> Self {
        Numbers {
            bypass_table: config.bypass.table,
            egress_table: config.egress.table,
            protocol: config.kernel.protocol,
            priority: config.kernel.priority,
            pin_tables: config.pins().then_some(config.kernel.pin_tables),
            marks: config.pins().then(|| config.kernel.pin_marks()),
        }
    }

    /// The table of flows pinned to the gateway of a slot; slot 0 is the bypass path.
    pub fn pin_table(&self, slot: Slot) -> Option<TableId> {
        let first = self.pin_tables?;
        (slot < PIN_TABLES).then(|| TableId(first.0 + slot))
    }

    /// The slot of a table of pinned flows.
    pub fn slot_of(&self, table: TableId) -> Option<Slot> {
        let slot = table.0.checked_sub(self.pin_tables?.0)?;
        (slot < PIN_TABLES).then_some(slot)
    }

    fn in_range(&self, priority: Priority) -> bool {
        (self.priority.0..self.priority.0 + PRIORITY_RANGE).contains(&priority.0)
    }

    /// The last priority of our range: the target of the goto by which flows skip our rules.
    pub fn landing(&self) -> Priority {
        Priority(self.priority.0 + PRIORITY_RANGE - 1)
    }

    /// True for the hundred ids from which earlier versions numbered their nexthop objects.
    fn had_nexthop_id(&self, id: NexthopId) -> bool {
        let first = (self.egress_table.0 % 20_000_000) * 100;
        (first..first + 100).contains(&id.0)
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers {
            bypass_table: TableId(1083),
            egress_table: TableId(1084),
            protocol: Protocol(83),
            priority: Priority(30000),
            pin_tables: Some(TableId(1100)),
            marks: None,
        }
    }
}

/// All numbers that may mark an object of ours: those of the current and of earlier configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    pub current: Numbers,
    /// The numbers of earlier configs, from the state dir.
    pub earlier: Vec<Numbers>,
}

impl Ownership {
    /// Ownership by the current numbers and by all different earlier numbers.
    pub fn new(current: Numbers, earlier: impl IntoIterator<Item = Numbers>) -> Self {
        let mut earlier: Vec<Numbers> = earlier.into_iter().filter(|n| *n != current).collect();
        earlier.sort();
        earlier.dedup();
        Ownership { current, earlier }
    }

    fn all(&self) -> impl Iterator<Item = &Numbers> {
        std::iter::once(&self.current).chain(&self.earlier)
    }

    /// Every table that may contain a route of ours, each once.
    pub fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self
            .all()
            .flat_map(|numbers| {
                let pinned = (0..PIN_TABLES).filter_map(|slot| numbers.pin_table(slot));
                [numbers.bypass_table, numbers.egress_table]
                    .into_iter()
                    .chain(pinned)
            })
            .collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Every protocol number that may mark an object of ours, each once.
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        self.all().map(|numbers| numbers.protocol).collect()
    }

    /// True for a route of ours.
    pub fn owns_route(&self, route: &Route) -> bool {
        let mark = |numbers: &Numbers| {
            route.protocol == numbers.protocol
                && (route.key.table == numbers.bypass_table
                    || route.key.table == numbers.egress_table
                    || numbers.slot_of(route.key.table).is_some())
        };
        // Nearly every route has the current numbers, and a pass asks four times for each route.
        mark(&self.current) || self.earlier.iter().any(mark)
    }

    /// True for a bypass table, current or earlier.
    pub fn is_bypass_table(&self, table: TableId) -> bool {
        self.all().any(|numbers| table == numbers.bypass_table)
    }

    /// True for a table of pinned flows, current or earlier.
    pub fn is_pin_table(&self, table: TableId) -> bool {
        self.slot_of(table).is_some()
    }

    /// True for a rule that leads to a table of pinned flows.
    pub fn leads_to_pins(&self, rule: &Rule) -> bool {
        matches!(rule.action, RuleAction::Lookup { table, .. } if self.is_pin_table(table))
    }

    /// The slot of a table of pinned flows, current or earlier: the marks of the flows stay.
    pub fn slot_of(&self, table: TableId) -> Option<Slot> {
        self.all().find_map(|numbers| numbers.slot_of(table))
    }

    /// True for a rule of ours.
    pub fn owns_rule(&self, rule: &Rule) -> bool {
        self.all()
            .any(|numbers| rule.protocol == numbers.protocol && numbers.in_range(rule.priority))
    }

    /// The destinations of our bypass routes among the routes.
    pub fn bypass_prefixes(&self, routes: &[Route]) -> PerFamily<Vec<IpNet>> {
        PerFamily::from_fn(|family| {
            let ours = routes.iter().filter(|route| {
                route.key.family() == family
                    && self.is_bypass_table(route.key.table)
                    && self.owns_route(route)
                    && route.target.forwards()
            });
            ours.map(|route| route.key.dst).collect()
        })
    }

    /// True for a rule with a protocol number of ours outside of our priorities.
    pub fn is_orphan(&self, rule: &Rule) -> bool {
        let ours = self.all().any(|numbers| rule.protocol == numbers.protocol);
        ours && !self.owns_rule(rule)
    }

    /// True for a foreign rule that keeps the packets it matches away from our rules.
    pub fn is_passed_by(&self, rule: &Rule) -> bool {
        if self.owns_rule(rule) || rule.priority >= self.current.priority {
            return false;
        }
        match rule.action {
            RuleAction::Lookup { table, .. } if table == TableId::LOCAL => false,
            // The main table without its default is also the effect of our own second rule.
            RuleAction::Lookup {
                suppress_prefixlength: Some(_),
                table,
            } if table == TableId::MAIN => false,
            RuleAction::Lookup { .. } | RuleAction::Other(_) => true,
            RuleAction::Goto(target) => target > self.current.priority,
            RuleAction::Nop => false,
        }
    }

    /// The marks of earlier configs that open flows may carry, if flows are pinned now.
    pub fn former_marks(&self) -> Vec<PinMarks> {
        let Some(now) = self.current.marks else {
            return Vec::new();
        };
        let mut former: Vec<PinMarks> = self
            .earlier
            .iter()
            .filter_map(|numbers| numbers.marks)
            .collect();
        former.retain(|marks| *marks != now && marks.are_sound());
        former.sort();
        former.dedup();
        former
    }

    /// True for a nexthop object that an earlier version of ours left.
    pub fn owns_nexthop(&self, nexthop: &NexthopObject) -> bool {
        self.all().any(|numbers| {
            nexthop.protocol == numbers.protocol && numbers.had_nexthop_id(nexthop.id)
        })
    }
}
