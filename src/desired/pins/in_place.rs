//! The packets that the routes lead by the path of their flow, in the chain that marks all others.

use super::Pins;
use crate::firewall::{FwRule, Match, Path, Statement};
use crate::types::Mark;

impl Pins {
    /// The marks of pinned flows, with their path.
    pub(in crate::desired) fn flow_marks(&self) -> Vec<(Mark, Path)> {
        let bypass = self.marks.bypass_flow();
        let marks = self.of_flows().map(|(flow, ..)| flow);
        let path = |flow| {
            if flow == bypass {
                Path::Bypass
            } else {
                Path::Egress
            }
        };
        marks.map(|flow| (flow, path(flow))).collect()
    }

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
