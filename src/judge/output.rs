//! Host role: foreign chains in the way of the host's own packets and of the answers. The routes are
//! right, and a filter drops the packets, or a translation leads them elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Field, Packet};
use super::clients::{destinations, sources};
use super::expected::{Expected, Promise};
use super::fate::{Fate, StoppingChain};
use super::forwarding::bypass_devices;
use super::probes::{inside, is_partner, ordinary_partner, selected};
use super::remedy::accept_answers;
use super::seen::{meets, seen_at};
use crate::degraded::{Degradation, Part};
use crate::desired::EgressPath;
use crate::types::{Family, IfIndex, PerFamily};

/// Adds the chains that stop packets of this host or their answers, and those that give packets
/// another destination. `own` are the addresses of sockets without one.
pub(super) fn judge(
    promise: &Promise<'_>,
    own: &PerFamily<Option<IpAddr>>,
    verdicts: &mut Verdicts,
) {
    for family in Family::ALL {
        if promise.forwards(family) {
            continue;
        }
        for way in ways(promise, family) {
            // The kernel's choice of the source is known for the way of partners alone.
            let own = own.get(family).filter(|_| way.has_partners_source);
            for packet in [sent(promise, &way, own), answer(promise, &way, own)] {
                let judged = Judged {
                    promise,
                    packet: &packet,
                    part: way.part,
                };
                for chain in promise.chains {
                    judged.chain(chain, verdicts);
                }
            }
        }
    }
}

/// An interface by which packets leave, with a destination.
struct Way {
    part: Part,
    device: IfIndex,
    destination: IpAddr,
    /// A socket without an address has the same source here as for a partner.
    has_partners_source: bool,
}

fn ways(promise: &Promise<'_>, family: Family) -> Vec<Way> {
    let paths = promise.desired.paths.get(family);
    let partner = matches!(paths.egress, EgressPath::Gateways(_))
        .then(|| ordinary_partner(promise, family))
        .flatten();
    let egress = match partner {
        Some(_) => egress_devices(promise, family),
        None => Vec::new(),
    };
    let storage = selected(promise, family).next().map(inside);
    let bypass = paths.bypass.as_ref().map(bypass_devices);
    let bypass = bypass.unwrap_or_default().into_iter().filter_map(|device| {
        Some(Way {
            part: Part::Bypass,
            device,
            destination: storage?,
            has_partners_source: egress.is_empty() || egress == [device],
        })
    });
    let egress = egress.iter().filter_map(|device| {
        Some(Way {
            part: Part::Egress,
            device: *device,
            destination: partner?,
            has_partners_source: egress.len() == 1,
        })
    });
    bypass.chain(egress).collect()
}

/// The interfaces of the egress default, each once.
fn egress_devices(promise: &Promise<'_>, family: Family) -> Vec<IfIndex> {
    let mut defaults = promise.desired.routes.iter().filter(|route| {
        route.key.table == promise.numbers().egress_table
            && route.key.dst == family.default_prefix()
            && route.target.forwards()
    });
    let legs = defaults.next().map(|default| default.target.legs());
    let legs = legs.into_iter().flatten();
    let devices: BTreeSet<IfIndex> = legs.map(|leg| leg.via.device).collect();
    devices.into_iter().collect()
}

/// The first packet of a connection.
fn sent(promise: &Promise<'_>, way: &Way, own: Option<IpAddr>) -> Packet {
    let family = Family::of(way.destination);
    Packet {
        unseen: match own {
            Some(_) => Vec::new(),
            None => vec![Field::Source(family)],
        },
        ..Packet::opening(
            (IfIndex(0), String::new()),
            (way.device, promise.facts.device_name(way.device)),
            own.unwrap_or(way.destination),
            way.destination,
        )
    }
}

/// A later packet of the connection, from the other side. Answers to an address of another interface
/// perhaps come in there.
fn answer(promise: &Promise<'_>, way: &Way, own: Option<IpAddr>) -> Packet {
    let family = Family::of(way.destination);
    let is_here = |own: &IpAddr| {
        let mut all = promise.facts.addresses.iter();
        all.any(|it| it.net.addr() == *own && it.link == way.device)
    };
    let mut unseen = vec![Field::FlowStatus];
    if own.is_none() {
        unseen.push(Field::Destination(family));
    }
    if !own.is_some_and(|own| is_here(&own)) {
        unseen.extend([Field::InputName, Field::InputIndex]);
    }
    Packet {
        unseen,
        ..sent(promise, way, own).answer()
    }
}

/// The harm that a chain does to a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    Stops,
    Diverts,
}

/// A packet of the host, or an answer.
struct Judged<'a> {
    promise: &'a Promise<'a>,
    packet: &'a Packet,
    part: Part,
}

impl Judged<'_> {
    /// True for the chains that the packet passes.
    fn meets(&self, chain: &BaseChain) -> bool {
        use ChainPlace::{
            Egress, Ingress, Input, Output, OutputDiversion, Postrouting, Prerouting,
        };
        let passed = if self.packet.opens() {
            matches!(chain.place, Output | OutputDiversion | Postrouting | Egress)
        } else {
            matches!(chain.place, Ingress | Prerouting | Input)
        };
        passed && meets(chain, self.packet)
    }

    /// The address of the other side.
    fn other(&self) -> IpAddr {
        if self.packet.opens() {
            self.packet.destination
        } else {
            self.packet.source
        }
    }

    /// The fate of the same packet with another address of the other side.
    fn fate(&self, chain: &BaseChain, other: IpAddr) -> Fate {
        let mut packet = self.packet.clone();
        if packet.opens() {
            packet.destination = other;
        } else {
            packet.source = other;
        }
        let mut seen = seen_at(chain, &packet);
        // The destination of an answer is an address of this host, whatever the hook.
        if !packet.opens() {
            let destination = Field::Destination(packet.family());
            seen.unseen.retain(|field| *field != destination);
        }
        // An administrator may let single users pass, on purpose.
        if chain.place != ChainPlace::OutputDiversion {
            seen.unseen.push(Field::User);
        }
        seen.unseen.extend(&packet.unseen);
        chain.fate(&seen)
    }

    fn chain(&self, chain: &BaseChain, verdicts: &mut Verdicts) {
        if !self.meets(chain) {
            return;
        }
        let (culprit, harm, certain) = match self.fate(chain, self.other()) {
            Fate::Stopped(culprit) => (culprit, Harm::Stops, true),
            // Filters of input have conditions of many kinds.
            Fate::MayStop(culprit) if self.packet.opens() => (culprit, Harm::Stops, false),
            Fate::Diverted(culprit) => (culprit, Harm::Diverts, true),
            Fate::MayDivert(culprit) => (culprit, Harm::Diverts, false),
            _ if self.part == Part::Egress => return,
            _ => return self.one_prefix(chain, verdicts),
        };
        // An administrator may allow some addresses alone, on purpose.
        let passes = |other: IpAddr| match self.fate(chain, other) {
            Fate::Stopped(_) => harm != Harm::Stops,
            Fate::Diverted(_) => harm != Harm::Diverts,
            _ => true,
        };
        let selective = self.named(chain).into_iter().any(passes);
        let is_certain = certain && !selective;
        let what = if selective { "some " } else { "" };
        let to = match self.part {
            Part::Egress => "partners",
            _ => "storage",
        };
        let finding = self.finding(chain, &culprit, harm, is_certain, what, to);
        if is_certain {
            verdicts.behind_the_route(finding);
        } else {
            verdicts.doubts.push(finding);
        }
    }

    /// A rule for one selected prefix.
    fn one_prefix(&self, chain: &BaseChain, verdicts: &mut Verdicts) {
        let harmed = |address| match self.fate(chain, address) {
            Fate::Stopped(culprit) => Some((culprit, Harm::Stops)),
            Fate::Diverted(culprit) => Some((culprit, Harm::Diverts)),
            _ => None,
        };
        let named = self.named(chain);
        let is_named = |prefix: &IpNet| named.iter().any(|address| prefix.contains(address));
        let mut prefixes = selected(self.promise, self.packet.family()).filter(is_named);
        let found = prefixes.find_map(|prefix| {
            let (culprit, harm) = harmed(prefix.network())?;
            harmed(prefix.broadcast()).map(|_| (culprit, harm, prefix.to_string()))
        });
        if let Some((culprit, harm, prefix)) = found {
            let finding = self.finding(chain, &culprit, harm, true, "", &prefix);
            verdicts.behind_the_route(finding);
        }
    }

    /// The addresses of the other side that the chain names.
    fn named(&self, chain: &BaseChain) -> Vec<IpAddr> {
        let family = self.packet.family();
        let usable = |address: &IpAddr| match self.part {
            Part::Egress => is_partner(self.promise, *address),
            _ => matches!(self.promise.expected(*address), Expected::Bypass(_)),
        };
        if self.packet.opens() {
            destinations(chain, family, usable)
        } else {
            sources(chain, family, usable)
        }
    }

    fn finding(
        &self,
        chain: &BaseChain,
        culprit: &StoppingChain,
        harm: Harm,
        certain: bool,
        what: &str,
        to: &str,
    ) -> Degradation {
        let perhaps = if certain { "" } else { "perhaps " };
        let (output, input) = (&self.packet.output.1, &self.packet.input.1);
        let (reason, advice) = match (harm, self.packet.opens()) {
            (Harm::Stops, true) => (
                format!("{culprit} {perhaps}stops {what}packets of this host to {to} by {output}"),
                format!("let packets of this host by {output} pass there, or remove the rule"),
            ),
            (Harm::Diverts, _) => (
                format!(
                    "{culprit} {perhaps}gives {what}packets of this host to {to} another destination"
                ),
                format!("exclude packets of this host to {to} there, or remove the rule"),
            ),
            (Harm::Stops, false) => (
                format!("{culprit} {perhaps}stops {what}answers of {to} to this host by {input}"),
                if chain.place == ChainPlace::Input {
                    accept_answers(chain)
                } else {
                    format!("let answers to this host by {input} pass there, or remove the rule")
                },
            ),
        };
        Degradation::new(self.part, self.packet.family(), reason).with_advice(advice)
    }
}
