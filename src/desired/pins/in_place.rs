//! The packets that the routes lead by the path of their flow, in the chain that marks all others.

use super::Pins;
use crate::firewall::{FwRule, Match, Statement};

impl Pins {
    /// The packets of flows that the routes lead by the path of their flow. No rule of the chain concerns
    /// them.
    pub(super) fn in_place(&self) -> Vec<FwRule> {
        let bypass = Match::FlowMark(self.marks.bypass_flow());
        let elsewhere = self.egress().into_iter().map(|hop| match hop {
            Match::NextHop(gateway) => Match::NotNextHop(gateway),
            Match::Realm(realm) => Match::NotRealm(realm),
            other => other,
        });
        let slots = self.slots.iter().map(|(slot, gateway)| {
            let flow = Match::FlowMark(self.marks.slot(*slot));
            vec![flow, self.through(*slot, *gateway)]
        });
        let bypass = std::iter::once(bypass).chain(elsewhere).collect();
        let paths = std::iter::once(bypass).chain(slots);
        let rule = |matches| FwRule {
            family: Some(self.family),
            matches,
            verdict: Statement::Accept,
        };
        paths.map(rule).collect()
    }
}
