//! Says to the prober which ways a pass has put in force.

use std::collections::BTreeSet;

use super::super::hops;
use super::super::ways::{Ways, changes_bypass};
use super::super::worker::Order;
use super::Agent;
use crate::health::{Health, WayId};
use crate::plan::Step;
use crate::reconcile::InForce;
use crate::types::Family;

impl Agent {
    /// Probes the ways in force. `health` is the verdict that the pass has followed, and `steps` are its
    /// changes: those of a bypass path begin a trial of the path.
    pub(super) fn probe_ways(&mut self, in_force: &InForce, health: Health, steps: &[Step]) {
        let (diverted, led) = split(&health, in_force);
        // The return of a path is no change of this host's own.
        let returned = &(&self.stored_diverted - &diverted) - &led;
        let health = health.with_use_of(led.into_iter().map(WayId::Bypass));
        self.remember_diverted(diverted);
        let pins = in_force.pins(&self.settings.config);
        let ways = Ways::of(in_force, pins.as_ref(), &self.settings);
        let uplinks = ways.iter().flat_map(|it| hops::uplinks(in_force, it));
        self.gateways.extend(uplinks);
        self.prober.watch(ways, &health);
        self.meter.use_pins(pins);
        self.prober.in_force(health);
        let changed = |family: &Family| changes_bypass(steps, *family, in_force);
        let families = Family::ALL.into_iter().filter(changed);
        let families = families.filter(|family| !returned.contains(family));
        families.for_each(|family| self.prober.changed(family));
    }

    /// Stores the families whose storage traffic takes the egress path, for a restart.
    fn remember_diverted(&mut self, families: BTreeSet<Family>) {
        if families != self.stored_diverted {
            self.stored_diverted.clone_from(&families);
            let state_dir = self.settings.config.source.state_dir.clone();
            let order = Order::Diverted {
                state_dir,
                families,
            };
            // The worker ends only with the loop.
            let _ = self.orders.send(order);
        }
    }
}

/// The families whose bypass path is out of use, and those whose routes in force lead there whatever the
/// verdict says.
fn split(health: &Health, in_force: &InForce) -> (BTreeSet<Family>, BTreeSet<Family>) {
    let is_out = |family: &Family| !health.is_in_use(WayId::Bypass(*family));
    let out = Family::ALL.into_iter().filter(is_out);
    let (led, diverted) = out.partition(|family| hops::leads_to_bypass(in_force, *family));
    (diverted, led)
}
