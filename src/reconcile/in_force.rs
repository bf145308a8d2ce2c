//! The state that a pass leaves in force.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Config;
use crate::facts::HostFacts;
use crate::firewall::Hook;
use crate::judge::{Pins, gateways};
use crate::ownership::Ownership;
use crate::plan::{FirewallGoal, Goal};
use crate::types::{Family, IfIndex, PerFamily};

/// The state that a pass leaves in force. An agent's watcher repairs deviations from `goal` until
/// the next pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub goal: Goal,
    pub ownership: Ownership,
    pub facts: HostFacts,
}

impl InForce {
    /// True for a NAT: our rules select packets of other hosts by their interface.
    pub fn forwards(&self) -> bool {
        let mut rules = self.goal.rules.iter();
        rules.any(|rule| rule.iif.as_deref().is_some_and(|iif| iif != "lo"))
    }

    /// True if the firewall drops packets of this host on neither path.
    pub fn is_closed(&self) -> bool {
        self.has_chain(Hook::PostroutingClosed)
    }

    fn has_chain(&self, hook: Hook) -> bool {
        let FirewallGoal::Policy { ruleset, .. } = &self.goal.firewall else {
            return false;
        };
        ruleset.chains.iter().any(|chain| chain.hook == hook)
    }

    /// The pins of open flows; `None` if no family has any.
    pub fn pins(&self, config: &Config) -> Option<Pins> {
        let mut pins = Pins::of(config, &self.goal.routes, &self.goal.rules)?;
        pins.resets_ended = self.has_chain(Hook::ForwardEnded);
        let mut families = Family::ALL.into_iter();
        families.any(|family| pins.are_in(family)).then_some(pins)
    }

    /// The gateways that packets need, each with its interface.
    pub fn gateways(&self) -> Vec<(IpAddr, IfIndex)> {
        let forwards = self.forwards();
        let numbers = &self.ownership.current;
        let found = gateways(&self.goal.routes, numbers, &self.facts, |_| forwards);
        found.into_keys().collect()
    }

    /// The number of bypass routes.
    pub fn bypass_routes(&self) -> PerFamily<usize> {
        PerFamily::from_fn(|family| {
            let bypass = self.goal.routes.iter().filter(|route| {
                route.key.family() == family
                    && self.ownership.is_bypass_table(route.key.table)
                    && route.target.forwards()
            });
            bypass.count()
        })
    }

    /// The prefixes with bypass routes.
    pub fn prefixes(&self) -> PerFamily<Vec<IpNet>> {
        self.ownership.bypass_prefixes(&self.goal.routes)
    }
}
