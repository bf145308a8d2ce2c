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
//! On the other interfaces to the internet (of the bypass path, of a further default, of an egress
//! address) rules drop the first packet of each flow that nobody has translated, and packets that
//! conntrack can't assign to a flow: routes may lead there before the translation is in, or after the
//! translation has gone. While the egress path is closed, perhaps for a lost link without address and
//! default, the rules hold on every interface.
//!
//! The translation matches interfaces by name. A renamed interface keeps its number, and the same drop
//! by number holds until the next pass has written the new name.
//!
//! Clients outside `[nat] sources` that another program translates on purpose (containers, a VPN)
//! leave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{InputPath, disjoint};
use crate::facts::{HostFacts, Link, MainRoute};
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
    /// True if the chain lies in another table than the guard, and outlives a flush of iptables.
    pub(super) beside_iptables: bool,
}

/// The limit for the administrator's routes excepted from the drop on every interface.
const MOST_EXCEPTED: usize = 64;

/// The other interfaces to the internet: those of the bypass path, of further defaults, and of egress
/// addresses. Each packet from `sources` is translated there, or takes the way by mistake.
pub(super) struct Elsewhere<'a> {
    pub(super) family: Family,
    pub(super) bypass: Vec<Via>,
    /// True if packets on the bypass path are translated, or if the rules tell them from others on the
    /// same interface.
    pub(super) bypass_too: bool,
    /// The interface of the egress path.
    pub(super) out: Option<IfIndex>,
    /// The interfaces of the settings: a link that is down or gone comes back before a pass sees it.
    pub(super) named: Vec<String>,
    /// The egress addresses of both families.
    pub(super) addresses: Vec<IpAddr>,
    /// True if the host has no egress address of the family.
    pub(super) closed: bool,
    /// The interfaces by which packets of `sources` come in.
    pub(super) incoming: &'a [InputPath],
    pub(super) sources: &'a [IpNet],
    pub(super) private: &'a [IpNet],
}

impl Elsewhere<'_> {
    /// The drop of untranslated packets on these interfaces, by name and by number.
    pub(super) fn rules(&self, facts: &HostFacts) -> Vec<FwRule> {
        let bypass: BTreeSet<IfIndex> = self.bypass.iter().map(|via| via.device).collect();
        let defaults = facts.defaults(self.family).into_iter();
        let mut devices: BTreeSet<IfIndex> = defaults.filter_map(|route| route.device).collect();
        devices.extend(self.of_addresses(facts));
        if self.bypass_too {
            if bypass.is_empty() || self.out.is_none() {
                devices.extend(self.unready(facts));
            }
            devices.extend(bypass);
        } else {
            devices.retain(|device| !bypass.contains(device));
        }
        devices.retain(|device| Some(*device) != self.out);
        let by_name = devices.iter().map(|device| facts.device_name(*device));
        let by_name: BTreeSet<String> = by_name.chain(self.of_settings(facts)).collect();
        let by_name = by_name.into_iter().map(Match::OutputInterface);
        let numbered = devices.iter().chain(&self.out);
        let out = by_name.chain(numbered.copied().map(Match::OutputIndex));
        let out = out.map(|out| (Some(out), self.private.to_vec()));
        let excepted = || [self.private, &self.led_elsewhere(facts, &devices)].concat();
        let everywhere = self.closed.then(|| (None, disjoint(excepted())));
        let rules = out.chain(everywhere).flat_map(|(out, destinations)| {
            let sources = self.sources.iter();
            sources.flat_map(move |source| self.drops(out.as_ref(), &destinations, *source))
        });
        rules.collect()
    }

    /// The interfaces with an egress address, which perhaps have lost their default for a moment.
    fn of_addresses(&self, facts: &HostFacts) -> impl Iterator<Item = IfIndex> {
        let own = facts.addresses.iter();
        let links = own.filter(|own| self.addresses.contains(&own.net.addr()));
        let links = links.filter_map(|own| facts.link(own.link));
        let links = links.filter(|link| self.is_outer(link));
        links.map(|link| link.index)
    }

    /// True if no packets of `sources` come in by the link.
    fn is_outer(&self, link: &Link) -> bool {
        let inside = |input: &InputPath| input.device == link.name;
        !link.loopback && !self.incoming.iter().any(inside)
    }

    /// The interfaces of the settings by the kernel's name, without the egress interface.
    fn of_settings(&self, facts: &HostFacts) -> impl Iterator<Item = String> {
        let link = |name: &String| facts.link_named(name).map(|link| link.index);
        let named = self.named.iter();
        let named = named.filter(move |name| self.out.is_none() || link(name) != self.out);
        named.map(move |name| link(name).map_or_else(|| name.clone(), |it| facts.device_name(it)))
    }

    /// The interfaces without carrier or address: a default comes back with them before a pass does.
    fn unready(&self, facts: &HostFacts) -> impl Iterator<Item = IfIndex> {
        let links = facts.links.iter();
        let links = links.filter(|link| self.is_outer(link) && !facts.is_ready(link, self.family));
        links.map(|link| link.index)
    }

    /// The administrator's routes by interfaces that are none of `devices`.
    fn led_elsewhere(&self, facts: &HostFacts, devices: &BTreeSet<IfIndex>) -> Vec<IpNet> {
        let elsewhere = |route: &&MainRoute| route.device.is_some_and(|it| !devices.contains(&it));
        let routes = facts.narrow_routes(self.family).filter(elsewhere);
        let routes = routes.map(|route| route.dst.trunc());
        routes.take(MOST_EXCEPTED).collect()
    }

    /// Connections from before the translation keep their address. Packets that conntrack can't assign
    /// to a flow are never translated. All packets of open flows fail the first condition.
    fn drops(&self, out: Option<&Match>, excepted: &[IpNet], source: IpNet) -> [FwRule; 2] {
        let flow = [Match::OpensFlow, Match::OriginalDirection];
        [&flow[..], &[Match::NotTracked]].map(|flow| {
            let mut matches = flow.to_vec();
            matches.extend(out.cloned());
            matches.extend([
                Match::DestinationNoneOf(excepted.to_vec()),
                Match::Forwarded,
                Match::Source(source),
                Match::SourceNotLocal,
            ]);
            FwRule {
                family: Some(self.family),
                matches,
                verdict: Statement::Drop,
            }
        })
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
        // Packets of `sources` that conntrack can't assign to a flow are the guard's. A flush of iptables
        // takes the guard; without a count, since they say nothing about another program's translation.
        if self.beside_iptables {
            rules.extend(self.sources.iter().map(|source| {
                let mut stray = self.leaving();
                stray.extend([Match::Forwarded, Match::NotTracked, Match::Source(*source)]);
                FwRule {
                    family: Some(self.family),
                    matches: stray,
                    verdict: Statement::Drop,
                }
            }));
        }
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
