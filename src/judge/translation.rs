//! NAT role: foreign chains that translate packets before ours, or give them another destination.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::Verdicts;
use super::chain::{BaseChain, ChainPlace, Effect, Field, NewSource, Origin, Packet};
use super::clients::{self, opening};
use super::expected::Promise;
use super::fate::{Fate, StoppingChain};
use super::marked::along;
use super::ordinary::Transport;
use super::probes::{inside, ordinary_partner, selected};
use crate::degraded::{Degradation, Part};
use crate::desired::InputPath;
use crate::firewall::{BackendKind, Hook, Statement};
use crate::objects::BypassPath;
use crate::types::{Family, IfIndex};

/// The priority of our translation: `srcnat - 5` with nftables, the table nat with iptables.
fn our_priority(promise: &Promise<'_>) -> i32 {
    match promise.backend {
        BackendKind::Nftables => 95,
        BackendKind::Iptables => 100,
    }
}

/// Judges the chains that translate sources, for clients on one input interface.
pub(super) fn judge(
    promise: &Promise<'_>,
    family: Family,
    input: &InputPath,
    verdicts: &mut Verdicts,
) {
    let paths = promise.desired.paths.get(family);
    let is_of_family = |chain: &BaseChain| {
        chain.place == ChainPlace::Translation && chain.families.contains(&family)
    };
    let judged = |chain| Judged {
        promise,
        chain,
        input,
        order: order(promise, chain, family),
    };
    let partner = paths.leaves_by.zip(ordinary_partner(promise, family));
    let ordinary = partner.and_then(|(out, to)| opening(promise, input, out, to));
    // With the marks that the chains before have written.
    let met = ordinary.iter().flat_map(|it| along(promise.chains, it));
    for (chain, ordinary) in met.filter(|(chain, _)| is_of_family(chain)) {
        judged(chain).partners(&ordinary, verdicts);
    }
    for chain in promise.chains.iter().filter(|chain| is_of_family(chain)) {
        judged(chain).untranslated(family, verdicts);
    }
}

/// A chain of translation, judged for one input interface.
struct Judged<'a> {
    promise: &'a Promise<'a>,
    chain: &'a BaseChain,
    input: &'a InputPath,
    order: Order,
}

impl Judged<'_> {
    /// Packets to partners, who know the egress addresses alone.
    fn partners(&self, ordinary: &Packet, verdicts: &mut Verdicts) {
        let mut known: Vec<StoppingChain> = Vec::new();
        if self.order != Order::After {
            for packet in clients::packets(self.promise, self.chain, self.input, ordinary) {
                let (to, culprit, certain) = match self.chain.fate(&packet) {
                    Fate::Translated(to, culprit) => (to, culprit, true),
                    Fate::MayTranslate(to, culprit) => (to, culprit, false),
                    _ => continue,
                };
                if known.contains(&culprit) {
                    continue;
                }
                let certain = certain && self.order == Order::Before;
                self.before_us(&culprit, to, certain, &packet, ordinary, verdicts);
                known.push(culprit);
            }
            let udp = Packet {
                transport: Transport::Udp,
                ..ordinary.clone()
            };
            if let Fate::Translated(to, culprit) = self.chain.fate(&udp)
                && !known.contains(&culprit)
            {
                let certain = self.order == Order::Before;
                self.before_us(&culprit, to, certain, &udp, ordinary, verdicts);
                known.push(culprit);
            }
            // Other protocols and ports than those of ordinary packets.
            let other = Packet {
                unseen: vec![Field::Protocol, Field::SourcePort, Field::DestinationPort],
                ..ordinary.clone()
            };
            if let Fate::MayTranslate(to, culprit) = self.chain.fate(&other)
                && !known.contains(&culprit)
            {
                self.before_us(&culprit, to, false, ordinary, ordinary, verdicts);
                known.push(culprit);
            }
        }
        if let Fate::Translated(_, culprit) = self.chain.fate_beyond_ours(ordinary)
            && (self.order == Order::After || holds_ours(self.chain))
            && !known.contains(&culprit)
        {
            verdicts.harmless.push(format!(
                "{}: {culprit} comes after our translation and sees a packet from {} only while our rules are missing",
                ordinary.family(),
                self.input.device
            ));
        }
    }

    /// A rule that translates a packet to partners before our rules.
    fn before_us(
        &self,
        culprit: &StoppingChain,
        to: NewSource,
        certain: bool,
        packet: &Packet,
        ordinary: &Packet,
        verdicts: &mut Verdicts,
    ) {
        let family = packet.family();
        let paths = self.promise.desired.paths.get(family);
        let address = self.address(to, packet.output.0, family);
        let is_egress = address.is_some_and(|to| paths.egress_addresses.contains(&to));
        if is_egress && paths.egress_addresses.len() == 1 {
            return;
        }
        let udp = match packet.transport {
            Transport::Udp => "UDP ",
            Transport::Tcp => "",
        };
        let from = if packet.source == ordinary.source {
            String::new()
        } else {
            format!("of {} ", packet.source)
        };
        let partner = if packet.destination == ordinary.destination {
            "partners".to_owned()
        } else {
            packet.destination.to_string()
        };
        let input = &packet.input.1;
        let (list, verb) = if certain && !is_egress {
            (&mut verdicts.degraded, "translates")
        } else if certain {
            // The other egress addresses belong to other clients.
            (&mut verdicts.doubts, "translates")
        } else {
            (&mut verdicts.doubts, "perhaps translates")
        };
        let reason = format!(
            "{culprit} {verb} {udp}packets {from}from {input} to {partner} before our rules"
        );
        list.push(self.finding(Part::Translation, family, reason));
    }

    /// Packets that the settings promise to leave alone: those to exempt destinations, and with
    /// `bypass = "none"` those to storage. Storage sees any address of this host otherwise.
    fn untranslated(&self, family: Family, verdicts: &mut Verdicts) {
        let paths = self.promise.desired.paths.get(family);
        let input = &self.input.device;
        for net in &paths.exempt {
            let to = inside(*net);
            let route = self.promise.facts.main_lookup(to);
            let out = route.and_then(|route| route.device).or(paths.leaves_by);
            let packet = out.and_then(|out| opening(self.promise, self.input, out, to));
            let Some(packet) = packet else { continue };
            let what = format!("from {input} to {net}, which [nat] exempt excludes");
            match self.chain.fate_beyond_ours(&packet) {
                Fate::Translated(_, culprit) => {
                    let reason = format!("{culprit} translates packets {what}");
                    let found = self.finding(Part::Translation, family, reason);
                    verdicts.degraded.push(found);
                }
                Fate::MayTranslate(_, culprit) => {
                    let reason = format!("{culprit} perhaps translates packets {what}");
                    let found = self.finding(Part::Translation, family, reason);
                    verdicts.doubts.push(found);
                }
                _ => {}
            }
        }
        let storage = selected(self.promise, family).next().map(inside);
        let via = paths.bypass.iter().flat_map(BypassPath::vias).next();
        let Some((to, via)) = storage.zip(via) else {
            return;
        };
        let Some(packet) = opening(self.promise, self.input, via.device, to) else {
            return;
        };
        let Fate::Translated(to, culprit) = self.storage_fate(&packet) else {
            return;
        };
        if leaves_storage_alone(self.promise, family) {
            let reason = format!(
                "{culprit} translates packets from {input} to storage, which [nat] bypass = \"none\" leaves alone"
            );
            let found = self.finding(Part::Bypass, family, reason);
            verdicts.degraded.push(found);
        } else if let NewSource::Address(to) = to
            && self.order == Order::Before
            && !self.promise.facts.is_own(to)
        {
            let reason = format!(
                "{culprit} translates packets from {input} to storage to {to}, which is no address of this host"
            );
            let found = self.finding(Part::Bypass, family, reason);
            verdicts.degraded.push(found);
        }
    }

    /// The fate of a packet to storage. In the table nat of iptables our ACCEPT ends the way of the
    /// packet; other chains see a packet that no rule has translated.
    fn storage_fate(&self, packet: &Packet) -> Fate {
        let accepted = holds_ours(self.chain);
        let ours_translate = !leaves_storage_alone(self.promise, packet.family());
        if accepted || ours_translate && self.order != Order::After {
            self.chain.fate(packet)
        } else if ours_translate {
            Fate::Passes
        } else {
            self.chain.fate_beyond_ours(packet)
        }
    }

    /// The address of a translated packet; `None` for an unknown one.
    fn address(&self, to: NewSource, out: IfIndex, family: Family) -> Option<IpAddr> {
        match to {
            NewSource::Address(to) => Some(to),
            NewSource::Unknown => None,
            NewSource::OfInterface => {
                let own = self.promise.facts.addresses.iter();
                let of_out = own.filter(|own| own.link == out).map(|own| own.net.addr());
                let mut global = of_out.filter(|address| {
                    let local = match address {
                        IpAddr::V4(_) => false,
                        IpAddr::V6(address) => address.is_unicast_link_local(),
                    };
                    Family::of(*address) == family && !local
                });
                global.next()
            }
        }
    }

    fn finding(&self, part: Part, family: Family, reason: String) -> Degradation {
        let advice = format!(
            "exclude packets from {} there, or remove the rule",
            self.input.device
        );
        Degradation::new(part, family, reason).with_advice(advice)
    }
}

/// True for `bypass = "none"`: our rules leave packets to storage alone.
fn leaves_storage_alone(promise: &Promise<'_>, family: Family) -> bool {
    let chains = promise.desired.firewall.iter().flat_map(|it| &it.chains);
    let mut nat = chains.filter(|chain| chain.hook == Hook::PostroutingNat);
    nat.any(|chain| {
        let mut rules = chain.rules.iter();
        rules.any(|rule| rule.family == Some(family) && rule.verdict == Statement::Accept)
    })
}

/// The place of a foreign chain in the sequence of translations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Before,
    After,
    /// Chains of equal priority, one of them in iptables-legacy or younger than its table.
    Unknown,
}

/// The order of a foreign chain and ours. Among chains of equal priority the newest comes first
/// (`nf_hook_entries_grow`, net/netfilter/core.c; seen with kernel 6.18). The handle of a table tells
/// its age; chains that are younger than their table leave the order unknown.
fn order(promise: &Promise<'_>, chain: &BaseChain, family: Family) -> Order {
    if holds_ours(chain) {
        return Order::Before;
    }
    let mut all = promise.chains.iter();
    let ours = all.find(|it| {
        it.place == ChainPlace::Translation && holds_ours(it) && it.families.contains(&family)
    });
    match chain.priority.cmp(&our_priority(promise)) {
        Ordering::Less => Order::Before,
        Ordering::Greater => Order::After,
        Ordering::Equal if promise.backend == BackendKind::Nftables => Order::Before,
        Ordering::Equal => match (chain.age, ours.and_then(|ours| ours.age)) {
            (Some(theirs), Some(ours))
                if theirs.table > ours.table && ours.origin != Origin::Late =>
            {
                Order::Before
            }
            (Some(theirs), Some(ours))
                if theirs.table < ours.table && theirs.origin == Origin::First =>
            {
                Order::After
            }
            _ => Order::Unknown,
        },
    }
}

/// A connection to a partner that ends at a proxy goes on with an address of the proxy's.
pub(super) fn diverted(
    promise: &Promise<'_>,
    culprit: &StoppingChain,
    certain: bool,
    packet: &Packet,
    verdicts: &mut Verdicts,
) {
    let family = packet.family();
    let to_partner = ordinary_partner(promise, family) == Some(packet.destination);
    let (part, to) = if to_partner {
        (Part::Translation, "partners")
    } else {
        (Part::Bypass, "storage")
    };
    let input = &packet.input.1;
    let (list, verb) = if certain {
        (&mut verdicts.degraded, "gives")
    } else {
        (&mut verdicts.doubts, "perhaps gives")
    };
    let reason = format!("{culprit} {verb} packets from {input} to {to} another destination");
    let advice = format!("exclude packets from {input} there, or remove the rule");
    list.push(Degradation::new(part, family, reason).with_advice(advice));
}

fn holds_ours(chain: &BaseChain) -> bool {
    let mut rules = chain.chains.values().flatten();
    rules.any(|rule| rule.effect == Effect::Ours)
}
