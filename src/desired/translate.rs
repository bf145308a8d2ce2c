//! The translation of the NAT role, and the rules that drop untranslated packets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DesiredError, DesiredState, EgressPath, Inputs,
    bypass_match::ask,
    counting::{self, Counting},
    disjoint, gateway, masquerade, special,
};
use crate::config::{AutoOr, NatBypass};
use crate::firewall::{Chain, FwRule, Hook, Match, Ruleset, Statement};
use crate::objects::{BypassPath, Via};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// The seed of the hash that assigns source hosts to egress addresses. The number is arbitrary but
/// fixed: without a seed the kernel draws a new one at each load, and the address of a host would
/// change.
const SHARE_SEED: u32 = 0x5452_4149;

/// The rules of all families, by chain.
#[derive(Default)]
pub(super) struct Chains {
    pub(super) prerouting: Vec<FwRule>,
    pub(super) nat: Vec<FwRule>,
    pub(super) guard: Vec<FwRule>,
    pub(super) counting: Counting,
}

impl Chains {
    pub(super) fn into_ruleset(mut self, inputs: &Inputs) -> Ruleset {
        let inbound = inputs.config.kernel.path_mask.inbound();
        self.prerouting.push(FwRule {
            family: None,
            matches: vec![Match::FlowMark(inbound)],
            verdict: Statement::RestoreMark {
                mask: inputs.config.kernel.path_mask.packet().mask,
            },
        });
        let chains = [
            (Hook::Prerouting, self.prerouting),
            (Hook::PostroutingNat, self.nat),
            (Hook::PostroutingGuard, self.guard),
        ];
        let mut policy = Ruleset {
            chains: chains
                .into_iter()
                .filter(|(_, rules)| !rules.is_empty())
                .map(|(hook, rules)| Chain { hook, rules })
                .collect(),
        };
        self.counting.complete(&mut policy);
        policy
    }
}

/// The translation of one family.
struct Translation<'a> {
    family: Family,
    /// The matches for the bypass path, one list for each alternative.
    bypass: Vec<Vec<Match>>,
    bypass_verdict: Statement,
    /// The interface of the egress path.
    out: &'a str,
    /// The egress addresses.
    addresses: &'a [IpAddr],
    /// The sources' own networks and the VPC: no translation on the way there.
    home: Vec<IpNet>,
    /// Interfaces on which untranslated packets are dropped.
    guarded_devices: Vec<String>,
    /// Destinations exempt from that drop.
    guarded: Vec<IpNet>,
}

/// Adds the translation of one family.
pub(super) fn translate(
    inputs: &Inputs,
    family: Family,
    sources: &[IpNet],
    addresses: &[IpAddr],
    state: &mut DesiredState,
    chains: &mut Chains,
) -> Result<(), DesiredError> {
    let out = egress_device(inputs, family)?;
    let out_name = inputs.facts.device_name(out);
    note_addresses_elsewhere(inputs, addresses, out, state);
    let bypass = state.paths.get(family).bypass.clone();
    let numbers = Numbers::of(inputs.config);
    let asks = bypass.as_ref().map_or_else(Vec::new, |bypass| {
        ask(inputs, &numbers, family, bypass, out, state)
    });
    let hops: Vec<Via> = bypass.iter().flat_map(BypassPath::vias).collect();
    let bypass_verdict = bypass_verdict(&inputs.config.nat.bypass, family);
    if bypass_verdict == Statement::Masquerade {
        let note = |via: &Via| masquerade::note(inputs.facts, family, *via, addresses);
        state.notes.extend(hops.iter().filter_map(note));
    }
    let guarded = private(inputs, family, sources);
    let matches = counting::of_nat(sources, &asks, &out_name, &guarded);
    chains.counting.add(inputs.config, family, matches);
    // Untranslated packets are dropped on each interface where all leaving packets are translated.
    let mut guarded_devices = vec![out_name.clone()];
    if bypass_verdict != Statement::Accept {
        let others = hops.iter().filter(|via| via.device != out);
        guarded_devices.extend(others.map(|via| inputs.facts.device_name(via.device)));
        guarded_devices.dedup();
    }
    let translation = Translation {
        family,
        bypass: asks,
        bypass_verdict,
        out: &out_name,
        addresses,
        home: home(inputs, family, sources),
        guarded_devices,
        guarded,
    };
    for source in sources {
        translation.add(*source, chains);
    }
    let paths = state.paths.get_mut(family);
    paths.egress = EgressPath::Main;
    paths.leaves_by = Some(out);
    Ok(())
}

impl Translation<'_> {
    /// Adds the rules for one source network.
    fn add(&self, source: IpNet, chains: &mut Chains) {
        let rule = |matches, verdict| FwRule {
            family: Some(self.family),
            matches,
            verdict,
        };
        // The VPC's CIDR contains this host's own addresses too. The host's own traffic is neither
        // translated nor guarded: conntrack never tracks neighbour discovery.
        let from = vec![Match::Source(source), Match::SourceNotLocal];
        let leaving = |device: &str| {
            let mut matches = from.clone();
            matches.push(Match::OutputInterface(device.to_owned()));
            matches
        };
        for bypass in &self.bypass {
            let matches = [from.as_slice(), bypass].concat();
            let rule = rule(matches, self.bypass_verdict.clone());
            if self.bypass_verdict == Statement::Accept {
                chains.guard.push(rule.clone());
            }
            chains.nat.push(rule);
        }
        for (bucket, address) in self.addresses.iter().enumerate() {
            let mut matches = leaving(self.out);
            matches.push(Match::DestinationNoneOf(self.home.clone()));
            if self.addresses.len() > 1 {
                matches.push(Match::SourceBucket {
                    bucket: bucket as u32,
                    buckets: self.addresses.len() as u32,
                    seed: SHARE_SEED,
                });
            }
            chains.nat.push(rule(matches, Statement::Snat(*address)));
        }
        for device in &self.guarded_devices {
            let mut matches = leaving(device);
            matches.push(Match::NotTracked);
            matches.push(Match::DestinationNoneOf(self.guarded.clone()));
            chains.guard.push(rule(matches, Statement::Drop));
        }
    }
}

fn note_addresses_elsewhere(
    inputs: &Inputs,
    addresses: &[IpAddr],
    out: IfIndex,
    state: &mut DesiredState,
) {
    let facts = inputs.facts;
    let on_out = |address: &IpAddr| {
        let mut own = facts.addresses.iter();
        own.any(|own| own.net.addr() == *address && own.link == out)
    };
    for address in addresses.iter().filter(|address| !on_out(address)) {
        let out = facts.device_name(out);
        state.notes.push(format!(
            "[nat] egress_addresses: {address} is not on {out}, the interface of the egress path; the network may drop packets from {address}"
        ));
    }
}

fn bypass_verdict(setting: &NatBypass, family: Family) -> Statement {
    match setting {
        NatBypass::Masquerade => Statement::Masquerade,
        NatBypass::None => Statement::Accept,
        NatBypass::Addresses(addresses) => addresses
            .iter()
            .find(|address| Family::of(**address) == family)
            .map_or(Statement::Masquerade, |address| Statement::Snat(*address)),
    }
}

/// The sources' own networks and the VPC.
fn home(inputs: &Inputs, family: Family, sources: &[IpNet]) -> Vec<IpNet> {
    let vpc = inputs.vpc_cidrs.iter();
    let vpc = vpc.filter(|cidr| Family::of_net(cidr) == family);
    disjoint(sources.iter().chain(vpc).copied().collect())
}

/// The interface of a family's egress path.
pub(super) fn egress_device(inputs: &Inputs, family: Family) -> Result<IfIndex, DesiredError> {
    if let AutoOr::Set(name) = &inputs.config.nat.egress_interface {
        return gateway::interface(inputs.facts, "[nat] egress_interface", name);
    }
    inputs
        .facts
        .defaults(family)
        .first()
        .and_then(|route| route.device)
        .ok_or(DesiredError::NoEgressInterface)
}

/// Destinations that neither path applies to: private space, the sources' own networks and the VPC.
pub(super) fn private(inputs: &Inputs, family: Family, sources: &[IpNet]) -> Vec<IpNet> {
    let mut private = special::thrown(family, inputs.vpc_cidrs);
    private.extend(sources);
    disjoint(private)
}
