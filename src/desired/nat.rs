//! The NAT role: the instance that translates, for packets that it forwards.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DesiredError, DesiredState, EgressPath, InputPath, Inputs,
    bypass_match::{ask, differs},
    counting::{self, Counting},
    disjoint, gateway, landing, lookup, main_without_default, masquerade, place, rule, special,
};
use crate::config::{AutoOr, NatBypass};
use crate::facts::HostFacts;
use crate::firewall::{Chain, FwRule, Hook, Match, Ruleset, Verdict};
use crate::objects::{Rule, RuleAction};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex, Priority};

/// Seed of the hash that shares the egress addresses out. Any fixed number: without one the
/// kernel draws a new one at each load, and a host would change its address.
const SHARE_SEED: u32 = 0x5452_4149;

/// Adds the rules and the translation to a state that has the bypass routes.
pub fn complete(inputs: &Inputs, state: &mut DesiredState) -> Result<(), DesiredError> {
    let numbers = Numbers::of(inputs.config);
    let sources = sources(inputs)?;
    let mut chains = Chains::default();
    for family in Family::ALL {
        let sources: Vec<IpNet> = sources
            .iter()
            .copied()
            .filter(|source| Family::of_net(source) == family)
            .collect();
        if sources.is_empty() || !inputs.available.get(family) {
            // Routes without rules steer nothing.
            state.routes.retain(|route| route.key.family() != family);
            state.paths.get_mut(family).bypass = None;
            continue;
        }
        steer(inputs, &numbers, family, &sources, state)?;
        keep_inbound(inputs, family, &sources, &mut chains);
        let addresses = egress_addresses(inputs, family, state)?;
        if addresses.is_empty() {
            state.notes.push(format!(
                "{family}: no egress address: forwarded {family} traffic is steered but not translated"
            ));
            // Both paths may look alike then, and the addresses don't tell either.
            if let Some(bypass) = state.paths.get(family).bypass
                && let Ok(out) = egress_device(inputs, family)
                && let Some(asks) = differs(inputs, family, bypass, out)
            {
                let out = inputs.facts.device_name(out);
                let private = private(inputs, family, &sources);
                let told = counting::of_nat(&sources, Some(&asks), &out, &private);
                chains.counting.add(inputs.config, family, told);
            }
            continue;
        }
        translate(
            inputs,
            &numbers,
            family,
            &sources,
            &addresses,
            state,
            &mut chains,
        )?;
    }
    // The translation doesn't depend on steering: a family may be left out of [select] families.
    if !state.rules.is_empty() || !chains.nat.is_empty() {
        state.firewall = Some(chains.into_ruleset(inputs));
    }
    Ok(())
}

/// The private networks whose packets we forward.
fn sources(inputs: &Inputs) -> Result<Vec<IpNet>, DesiredError> {
    let mut sources: Vec<IpNet> = match &inputs.config.nat.sources {
        AutoOr::Set(sources) => sources.clone(),
        AutoOr::Auto if inputs.vpc_cidrs.is_empty() => return Err(DesiredError::NoSources),
        AutoOr::Auto => inputs.vpc_cidrs.to_vec(),
    };
    sources.sort();
    sources.dedup();
    Ok(sources)
}

/// The rules: only for what comes in from our sources, so that the box's own traffic isn't
/// steered.
fn steer(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    sources: &[IpNet],
    state: &mut DesiredState,
) -> Result<(), DesiredError> {
    if !inputs.config.select.families.contains(&family) {
        return Ok(());
    }
    let mut paths: Vec<InputPath> = Vec::new();
    for source in sources {
        let devices = input_devices(inputs.facts, source);
        if devices.is_empty() {
            state.notes.push(format!(
                "[nat] sources: {source} is reached by no route of the main table; its packets are not steered"
            ));
        }
        paths.extend(devices.into_iter().map(|device| InputPath {
            device: inputs.facts.device_name(device),
            source: *source,
        }));
    }
    let mut devices: Vec<&str> = paths.iter().map(|path| path.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    if devices.len() > place::MOST {
        return Err(DesiredError::TooManyInputs {
            count: devices.len(),
            most: place::MOST,
        });
    }
    for (index, device) in devices.iter().enumerate() {
        let incoming = |at: u32, action: RuleAction| Rule {
            priority: Priority(numbers.priority.0 + at + index as u32),
            iif: Some((*device).to_owned()),
            ..rule(numbers, family, at, action)
        };
        let mut inbound = incoming(place::INBOUND, RuleAction::Goto(numbers.landing()));
        inbound.mark = Some(inputs.config.kernel.path_mask.inbound());
        state.rules.push(inbound);
        state
            .rules
            .push(incoming(place::MAIN, main_without_default()));
        state
            .rules
            .push(incoming(place::BYPASS, lookup(numbers.bypass_table)));
    }
    if !devices.is_empty() {
        state.rules.push(landing(numbers, family));
    }
    state.paths.get_mut(family).inputs = paths;
    Ok(())
}

/// Where packets of a network come in: where the main table would send answers. Several
/// interfaces may each hold a part of it (the private and the public subnet of one VPC), and a
/// host of any part is a source. Host routes don't count: they lead to containers of this
/// machine or to single peers.
fn input_devices(facts: &HostFacts, source: &IpNet) -> BTreeSet<IfIndex> {
    let parts: BTreeSet<IfIndex> = facts
        .main_routes
        .iter()
        .filter(|route| {
            route.unicast
                && route.dst.prefix_len() > 0
                && (route.dst.prefix_len() < route.dst.max_prefix_len() || route.dst == *source)
                && source.contains(&route.dst)
        })
        .filter_map(|route| route.device)
        .collect();
    if !parts.is_empty() {
        return parts;
    }
    facts
        .main_lookup(source.addr())
        .and_then(|route| route.device)
        .into_iter()
        .collect()
}

/// Flows that somebody else opens through this box keep the path they have without us, answers
/// included.
fn keep_inbound(inputs: &Inputs, family: Family, sources: &[IpNet], chains: &mut Chains) {
    let inbound = inputs.config.kernel.path_mask.inbound();
    let mut matches = vec![Match::NotInputInterface("lo".to_owned()), Match::NewFlow];
    matches.extend(sources.iter().copied().map(Match::NotSource));
    chains.prerouting.push(FwRule {
        family: Some(family),
        matches,
        verdict: Verdict::SetFlowMark(inbound),
    });
}

/// The addresses of this host that stand for the configured ones, sorted.
fn egress_addresses(
    inputs: &Inputs,
    family: Family,
    state: &mut DesiredState,
) -> Result<Vec<IpAddr>, DesiredError> {
    let mut found = Vec::new();
    for address in inputs
        .config
        .nat
        .egress_addresses
        .iter()
        .filter(|a| Family::of(**a) == family)
    {
        if inputs.facts.is_own(*address) {
            found.push(*address);
            continue;
        }
        let instance = inputs.facts.instance.as_ref();
        match instance.and_then(|instance| instance.public_addresses.get(address)) {
            Some(private) if inputs.facts.is_own(*private) => {
                state.notes.push(format!(
                    "[nat] egress_addresses: {address} is {private} on this host"
                ));
                found.push(*private);
            }
            Some(private) => {
                return Err(DesiredError::NotOurAddress {
                    address: *address,
                    hint: format!(
                        " (the metadata service maps it to {private}, which no interface has)"
                    ),
                });
            }
            None => {
                return Err(DesiredError::NotOurAddress {
                    address: *address,
                    hint: match instance {
                        Some(_) => {
                            " (nor does the metadata service list it for this instance)".to_owned()
                        }
                        None => " (the metadata service did not answer)".to_owned(),
                    },
                });
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The translation of one family.
fn translate(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    sources: &[IpNet],
    addresses: &[IpAddr],
    state: &mut DesiredState,
    chains: &mut Chains,
) -> Result<(), DesiredError> {
    let out = egress_device(inputs, family)?;
    let out_name = inputs.facts.device_name(out);
    for address in addresses {
        if !inputs
            .facts
            .addresses
            .iter()
            .any(|own| own.net.addr() == *address && own.link == out)
        {
            state.notes.push(format!(
                "[nat] egress_addresses: {address} is not on {out_name}, where the egress path leaves; the network may drop what comes from it"
            ));
        }
    }
    let asks = state
        .paths
        .get(family)
        .bypass
        .map(|bypass| ask(inputs, numbers, family, bypass, out, state));
    let bypass_verdict = match &inputs.config.nat.bypass {
        NatBypass::Masquerade => Verdict::Masquerade,
        NatBypass::None => Verdict::Accept,
        NatBypass::Addresses(addresses) => addresses
            .iter()
            .find(|address| Family::of(**address) == family)
            .map_or(Verdict::Masquerade, |address| Verdict::Snat(*address)),
    };
    if let Some(bypass) = state.paths.get(family).bypass
        && bypass_verdict == Verdict::Masquerade
    {
        let note = masquerade::note(inputs.facts, family, bypass, addresses);
        state.notes.extend(note);
    }
    let mut home: Vec<IpNet> = sources.to_vec();
    home.extend(
        inputs
            .vpc_cidrs
            .iter()
            .copied()
            .filter(|cidr| Family::of_net(cidr) == family),
    );
    let home = disjoint(home);
    let guarded = private(inputs, family, sources);
    let told = counting::of_nat(sources, asks.as_deref(), &out_name, &guarded);
    chains.counting.add(inputs.config, family, told);
    // Where everything that leaves is translated, what can't be doesn't leave.
    let mut guarded_devices = vec![out_name.clone()];
    if let Some(bypass) = state.paths.get(family).bypass
        && bypass.device != out
        && bypass_verdict != Verdict::Accept
    {
        guarded_devices.push(inputs.facts.device_name(bypass.device));
    }
    for source in sources {
        // This box's own addresses lie in the VPC's CIDR too; its own traffic is neither
        // translated nor guarded (neighbour discovery is never tracked).
        let from = vec![Match::Source(*source), Match::SourceNotLocal];
        if let Some(asks) = &asks {
            let mut matches = from.clone();
            matches.extend(asks.iter().cloned());
            let rule = FwRule {
                family: Some(family),
                matches,
                verdict: bypass_verdict.clone(),
            };
            if bypass_verdict == Verdict::Accept {
                chains.guard.push(rule.clone());
            }
            chains.nat.push(rule);
        }
        let mut leaving = from.clone();
        leaving.push(Match::OutputInterface(out_name.clone()));
        for (bucket, address) in addresses.iter().enumerate() {
            let mut matches = leaving.clone();
            matches.push(Match::DestinationNoneOf(home.clone()));
            if addresses.len() > 1 {
                matches.push(Match::SourceBucket {
                    bucket: bucket as u32,
                    buckets: addresses.len() as u32,
                    seed: SHARE_SEED,
                });
            }
            chains.nat.push(FwRule {
                family: Some(family),
                matches,
                verdict: Verdict::Snat(*address),
            });
        }
        for device in &guarded_devices {
            let mut matches = from.clone();
            matches.push(Match::OutputInterface(device.clone()));
            matches.push(Match::NotTracked);
            matches.push(Match::DestinationNoneOf(guarded.clone()));
            chains.guard.push(FwRule {
                family: Some(family),
                matches,
                verdict: Verdict::Drop,
            });
        }
    }
    state.paths.get_mut(family).egress = EgressPath::Main;
    Ok(())
}

/// Where the egress path of a family leaves.
fn egress_device(inputs: &Inputs, family: Family) -> Result<IfIndex, DesiredError> {
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

/// What no path of ours is taken to: private space, the sources' own networks and the VPC.
fn private(inputs: &Inputs, family: Family, sources: &[IpNet]) -> Vec<IpNet> {
    let mut private = special::thrown(family, inputs.vpc_cidrs);
    private.extend(sources);
    disjoint(private)
}

#[derive(Default)]
struct Chains {
    prerouting: Vec<FwRule>,
    nat: Vec<FwRule>,
    guard: Vec<FwRule>,
    counting: Counting,
}

impl Chains {
    fn into_ruleset(mut self, inputs: &Inputs) -> Ruleset {
        let inbound = inputs.config.kernel.path_mask.inbound();
        self.prerouting.push(FwRule {
            family: None,
            matches: vec![Match::FlowMark(inbound)],
            verdict: Verdict::RestoreMark { mask: inbound.mask },
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
