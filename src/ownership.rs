//! What is ours: what carries our table *and* our protocol, or lies in our priority range *and*
//! carries our protocol. Read off the object itself, so that a fresh process knows it too.

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::objects::{NexthopObject, Route, Rule, RuleAction};
use crate::types::{NexthopId, Priority, Protocol, TableId};

/// How many priorities our rules may use, from the first on.
pub const PRIORITY_RANGE: u32 = 100;

/// The numbers that mark our objects. Stored in the state dir after each pass, so that a change
/// of the config cleans up what lies under the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Numbers {
    /// The table of the selected prefixes.
    pub bypass_table: TableId,
    /// The table of the egress default.
    pub egress_table: TableId,
    /// Our protocol number.
    pub protocol: Protocol,
    /// Our first rule.
    pub priority: Priority,
}

impl Numbers {
    /// The numbers of a config.
    pub fn of(config: &Config) -> Self {
        Numbers {
            bypass_table: config.bypass.table,
            egress_table: config.egress.table,
            protocol: config.kernel.protocol,
            priority: config.kernel.priority,
        }
    }

    fn in_range(&self, priority: Priority) -> bool {
        (self.priority.0..self.priority.0 + PRIORITY_RANGE).contains(&priority.0)
    }

    /// The last priority of our range: the landing place of flows that skip our rules.
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
    /// The defaults of the config file.
    fn default() -> Self {
        Numbers {
            bypass_table: TableId(1083),
            egress_table: TableId(1084),
            protocol: Protocol(83),
            priority: Priority(30000),
        }
    }
}

/// All numbers that may mark something of ours: the current ones, and those of earlier configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The current numbers.
    pub current: Numbers,
    /// Earlier ones, from the state dir.
    pub earlier: Vec<Numbers>,
}

impl Ownership {
    /// Ownership by the current numbers and the earlier ones that differ.
    pub fn new(current: Numbers, earlier: impl IntoIterator<Item = Numbers>) -> Self {
        let mut earlier: Vec<Numbers> = earlier.into_iter().filter(|n| *n != current).collect();
        earlier.sort();
        earlier.dedup();
        Ownership { current, earlier }
    }

    fn all(&self) -> impl Iterator<Item = &Numbers> {
        std::iter::once(&self.current).chain(&self.earlier)
    }

    /// Every table that may hold something of ours, each once.
    pub fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self
            .all()
            .flat_map(|numbers| [numbers.bypass_table, numbers.egress_table])
            .collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Whether the route is ours.
    pub fn owns_route(&self, route: &Route) -> bool {
        self.all().any(|numbers| {
            route.protocol == numbers.protocol
                && (route.key.table == numbers.bypass_table
                    || route.key.table == numbers.egress_table)
        })
    }

    /// Whether the route is one of the bypass path (current or earlier), ours or not.
    pub fn is_bypass_table(&self, table: TableId) -> bool {
        self.all().any(|numbers| table == numbers.bypass_table)
    }

    /// Whether the rule is ours.
    pub fn owns_rule(&self, rule: &Rule) -> bool {
        self.all()
            .any(|numbers| rule.protocol == numbers.protocol && numbers.in_range(rule.priority))
    }

    /// Whether the rule is foreign and packets that it matches never come to ours.
    pub fn is_passed_by(&self, rule: &Rule) -> bool {
        if self.owns_rule(rule) || rule.priority >= self.current.priority {
            return false;
        }
        match rule.action {
            RuleAction::Lookup { table, .. } if table == TableId::LOCAL => false,
            // Without defaults it is what our own second rule does.
            RuleAction::Lookup {
                suppress_prefixlength: Some(_),
                table,
            } if table == TableId::MAIN => false,
            RuleAction::Lookup { .. } | RuleAction::Other(_) => true,
            RuleAction::Goto(target) => target > self.current.priority,
            RuleAction::Nop => false,
        }
    }

    /// Whether an earlier version of ours left the nexthop object.
    pub fn owns_nexthop(&self, nexthop: &NexthopObject) -> bool {
        self.all().any(|numbers| {
            nexthop.protocol == numbers.protocol && numbers.had_nexthop_id(nexthop.id)
        })
    }
}
