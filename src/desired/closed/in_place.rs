//! The packets on the path of their flow, and the matches of both paths.

use std::collections::BTreeSet;

use super::{Leaving, accept, is_by_realm};
use crate::desired::pins::Pins;
use crate::desired::realm::{self, Realms};
use crate::firewall::{FwRule, Match};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

impl Leaving<'_> {
    /// The packets without a mark whose path the route alone proves, or the mark of their flow. The later
    /// rules accept them too.
    pub(super) fn in_place(&self, numbers: &Numbers) -> Vec<FwRule> {
        let devices = self.devices();
        if devices.is_empty() {
            return Vec::new();
        }
        let unmarked = Match::PacketMark(self.inputs.config.kernel.pin_marks().clear());
        let mut paths: Vec<Vec<Match>> = self
            .egress(numbers)
            .into_iter()
            .map(|it| vec![it])
            .collect();
        match (self.by_bypass(numbers), self.pins) {
            (Some(realm), _) => paths.push(vec![realm]),
            (None, Some(pins)) => paths.extend(self.pinned_bypass(pins, &devices)),
            (None, None) => {}
        }
        let rule = |path| accept(Some(self.family), [vec![unmarked.clone()], path].concat());
        paths.into_iter().map(rule).collect()
    }

    /// The matches for the egress path.
    pub(super) fn egress(&self, numbers: &Numbers) -> Vec<Match> {
        if is_by_realm(self.inputs) {
            let slots = self.pins.into_iter().flat_map(Pins::realms_of_slots);
            let realms = std::iter::once(Realms::of(numbers).egress()).chain(slots);
            return realms.map(Match::Realm).collect();
        }
        let gateways = self.inputs.config.egress.gateways_of(self.family);
        gateways.into_iter().map(Match::NextHop).collect()
    }

    /// The match for the bypass path, if the route alone proves it.
    pub(super) fn by_bypass(&self, numbers: &Numbers) -> Option<Match> {
        let proven = self.bypass.is_some() || is_by_realm(self.inputs);
        (proven && self.family == Family::Ipv4).then(|| Match::Realm(realm::of(numbers)))
    }

    /// The matches for packets of flows that are pinned to the bypass path.
    pub(super) fn pinned_bypass(
        &self,
        pins: &Pins,
        devices: &BTreeSet<IfIndex>,
    ) -> Vec<Vec<Match>> {
        let bypass = Match::FlowMark(pins.marks.bypass_flow());
        let hops = self.bypass_hops(devices).into_iter();
        hops.map(|hop| [hop, vec![bypass.clone()]].concat())
            .collect()
    }
}
