//! Says to the prober which ways a pass has put in force.

use super::super::hops;
use super::super::ways::{Ways, changes_bypass};
use super::{Agent, Read};
use crate::health::Health;
use crate::plan::Step;
use crate::reconcile::InForce;
use crate::types::Family;

impl<R: Fn() -> Read + Clone + Send + 'static> Agent<R> {
    /// Probes the ways in force. `health` is the verdict that the pass has followed; its steps tell
    /// whether the bypass path is another one.
    pub(super) fn probe_ways(&mut self, in_force: &InForce, health: Health, steps: &[Step]) {
        let pins = in_force.pins(&self.settings.config);
        let ways = Ways::of(in_force, pins.as_ref(), &self.settings);
        let uplinks = ways.iter().flat_map(|it| hops::uplinks(in_force, it));
        self.gateways.extend(uplinks);
        self.prober.watch(ways);
        self.meter.use_pins(pins);
        self.prober.in_force(health);
        let changed = |family: &Family| changes_bypass(steps, *family, in_force);
        let families = Family::ALL.into_iter().filter(changed);
        families.for_each(|family| self.prober.changed(family));
    }
}
