//! The drained gateways of a pass.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::pass::Pass;
use super::view::View;
use crate::state::drained;
use crate::types::Family;

impl Pass<'_> {
    /// Leaves the drained gateways out of the choice for new flows. `answers` is false for a silent disk,
    /// which no stage may touch.
    ///
    /// Unknown drained gateways are not none: gateways that get no new flows at present get none until
    /// the file is readable, as long as a family has another one.
    pub(super) fn take_drained(&mut self, view: &mut View, answers: bool) {
        let known = match &self.job.options.drained {
            Some(known) => Ok(known.clone()),
            None if self.job.config.egress.gateways.is_empty() => Ok(BTreeSet::new()),
            None if answers => drained::read(&self.store)
                .map(|read| read.into_keys().collect())
                .map_err(|error| error.to_string()),
            None => Err("the disk of the state directory gives no answer".to_owned()),
        };
        let drained = known.unwrap_or_else(|error| {
            let unused = unused(view, self.job.config.egress.addresses());
            let egress = &self.job.config.egress;
            let choose = |family| egress.gateways_of(family).len() > 1;
            if !unused.is_empty() || Family::ALL.into_iter().any(choose) {
                self.note(
                    format!(
                        "which gateways are drained is unknown ({error}): gateways without new flows \
                         stay without"
                    )
                    .into(),
                );
            }
            unused
        });
        view.health = std::mem::take(&mut view.health).with_drained(drained);
    }
}

/// The gateways without a route in the egress table, in families with such a route.
fn unused(view: &View, gateways: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
    let leading = view.observed.leading(&view.ownership);
    let is_unused = |gateway: &IpAddr| {
        let leading = leading.get(Family::of(*gateway));
        !leading.is_empty() && !leading.contains(gateway)
    };
    gateways.filter(is_unused).collect()
}
