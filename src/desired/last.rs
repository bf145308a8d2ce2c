//! NAT role: the last look at leaving packets, after all translation.
//!
//! The rules of the translation see the packets of `[nat] sources`, and a foreign chain may translate
//! a packet first. So a chain after all translation drops forwarded packets that leave by the egress
//! interface with another source than an egress address, and counts them:
//!
//! - packets that nobody has translated to an address of this host. The answers to flows from outside
//!   are no such packets: they carry the address that the client outside has chosen.
//! - the first packet of a flow to partners from `[nat] sources`, translated by another program. Flows
//!   from before our rules keep their address, so that no connection ends.
//!
//! On the other interfaces to the internet (of the bypass path, of a further default) a rule drops the
//! first packet of each flow that nobody has translated: routes may lead there before the translation
//! is in, or after the translation has gone.
//!
//! The translation matches interfaces by name. A renamed interface keeps its number, and the same drop
//! by number holds until the next pass has written the new name.
//!
//! Clients outside `[nat] sources` that another program translates on purpose (containers, a VPN)
//! leave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::HostFacts;
use crate::firewall::{DropReason, FwRule, Match, Statement};
use crate::objects::Via;
use crate::types::{Family, IfIndex, PathMask};

/// The leaving packets of one family.
pub(super) struct Last<'a> {
    pub(super) family: Family,
    pub(super) path: PathMask,
    pub(super) sources: &'a [IpNet],
    /// The interface of the egress path.
    pub(super) out: &'a str,
    /// True if packets of `sources` come in by `out` too.
    pub(super) one_interface: bool,
    pub(super) egress: &'a [IpAddr],
    /// Further addresses of flows of the egress path; `None` for any. Where lists of prefixes tell
    /// the paths apart, two tables of iptables change one after the other: the first packet of a
    /// flow may have the mark of one path and the translation of the other.
    pub(super) tolerated: Option<Vec<IpAddr>>,
    /// Destinations beyond which no partner is.
    pub(super) private: &'a [IpNet],
}

/// The other interfaces to the internet: those of the bypass path, and those of further defaults. Each
/// packet from `sources` is translated there, or takes the way by mistake.
pub(super) struct Elsewhere<'a> {
    pub(super) family: Family,
    pub(super) bypass: Vec<Via>,
    /// True if packets on the bypass path are translated, or if the rules tell them from others on the
    /// same interface.
    pub(super) bypass_too: bool,
    /// The interface of the egress path.
    pub(super) out: Option<IfIndex>,
    pub(super) sources: &'a [IpNet],
    pub(super) private: &'a [IpNet],
}

impl Elsewhere<'_> {
    /// The drop of untranslated packets on these interfaces, by name and by number.
    pub(super) fn rules(&self, facts: &HostFacts) -> Vec<FwRule> {
        let bypass: BTreeSet<IfIndex> = self.bypass.iter().map(|via| via.device).collect();
        let defaults = facts.defaults(self.family).into_iter();
        let mut devices: BTreeSet<IfIndex> = defaults.filter_map(|route| route.device).collect();
        if self.bypass_too {
            devices.extend(bypass);
        } else {
            devices.retain(|device| !bypass.contains(device));
        }
        devices.retain(|device| Some(*device) != self.out);
        let by_name = devices.iter().map(|device| facts.device_name(*device));
        let by_name = by_name.map(Match::OutputInterface);
        let numbered = devices.iter().chain(&self.out);
        let out = by_name.chain(numbered.copied().map(Match::OutputIndex));
        let rules = out.flat_map(|out| {
            let sources = self.sources.iter();
            sources.map(move |source| self.rule(out.clone(), *source))
        });
        rules.collect()
    }

    fn rule(&self, out: Match, source: IpNet) -> FwRule {
        FwRule {
            family: Some(self.family),
            matches: vec![
                out,
                Match::DestinationNoneOf(self.private.to_vec()),
                Match::Forwarded,
                Match::OriginalDirection,
                // Connections from before the translation keep their address.
                Match::OpensFlow,
                Match::Source(source),
                Match::SourceNotLocal,
            ],
            verdict: Statement::Drop,
        }
    }
}

impl Last<'_> {
    /// The rules, in order.
    pub(super) fn rules(&self) -> Vec<FwRule> {
        let rule = |matches: Vec<Match>, reason| FwRule {
            family: Some(self.family),
            matches,
            verdict: Statement::DropCounted(reason),
        };
        let mut rules = Vec::new();
        if let Some(tolerated) = &self.tolerated {
            // The mark of the path was written a moment ago, by the same packet.
            let mut wrong = self.leaving();
            let tolerated = tolerated.iter().copied().map(IpNet::from);
            wrong.extend(tolerated.map(Match::NotSource));
            wrong.extend([
                Match::OriginalDirection,
                Match::OpensFlow,
                Match::FlowMark(self.path.egress()),
            ]);
            rules.push(rule(wrong, DropReason::Sources));
        }
        for source in self.sources {
            let mut untranslated = self.leaving();
            untranslated.extend([
                Match::Forwarded,
                Match::OriginalDirection,
                Match::Source(*source),
                Match::SourceNotLocal,
            ]);
            rules.push(rule(untranslated, DropReason::Sources));
        }
        // Packets of `sources` that conntrack can't assign to a flow are the guard's.
        for flow in [Match::OriginalDirection, Match::NotTracked] {
            let mut outside = self.leaving();
            outside.extend([Match::Forwarded, flow]);
            if !self.one_interface {
                // Packets from outside to outside belong to no client.
                outside.push(Match::NotInputInterface(self.out.to_owned()));
            }
            outside.extend(self.sources.iter().copied().map(Match::NotSource));
            outside.push(Match::SourceNotLocal);
            rules.push(rule(outside, DropReason::Outside));
        }
        rules
    }

    /// Packets to partners with another source than an egress address.
    fn leaving(&self) -> Vec<Match> {
        let egress = self.egress.iter().copied().map(IpNet::from);
        let mut matches = vec![Match::OutputInterface(self.out.to_owned())];
        matches.extend(egress.map(Match::NotSource));
        matches.push(Match::DestinationNoneOf(self.private.to_vec()));
        matches
    }
}
