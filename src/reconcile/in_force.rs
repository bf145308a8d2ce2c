//! The state that a pass leaves in force.

use crate::facts::HostFacts;
use crate::ownership::Ownership;
use crate::plan::Goal;

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
}
