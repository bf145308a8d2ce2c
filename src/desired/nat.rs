//! The NAT role: an instance that forwards and translates packets of private networks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DesiredError, DesiredState, InputPath, Inputs,
    bypass_match::differs,
    counting, landing, lookup, main_without_default, place, rule,
    translate::{Chains, egress_device, private, translate},
};
use crate::config::AutoOr;
use crate::facts::HostFacts;
use crate::firewall::{FwRule, Match, Statement};
use crate::objects::{Rule, RuleAction};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex, Priority};

/// Adds the rules and the translation to a state with bypass routes.
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
            // Routes without rules have no effect.
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
            // Without translation the addresses are equal on both paths: count only if the routing
            // decisions differ.
            if let Some(bypass) = &state.paths.get(family).bypass
                && let Ok(out) = egress_device(inputs, family)
                && let Some(asks) = differs(inputs, family, bypass, out)
            {
                let out = inputs.facts.device_name(out);
                let private = private(inputs, family, &sources);
                let matches = counting::of_nat(&sources, &asks, &out, &private);
                chains.counting.add(inputs.config, family, matches);
            }
            continue;
        }
        translate(inputs, family, &sources, &addresses, state, &mut chains)?;
    }
    // Translation is independent of steering: [select] families may omit a family.
    if !state.rules.is_empty() || !chains.nat.is_empty() {
        state.firewall = Some(chains.into_ruleset(inputs));
    }
    Ok(())
}

/// The private networks for which this host forwards packets.
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

/// Adds the policy rules, limited to packets that come in from our sources: this host's own traffic
/// is not steered.
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
                "[nat] sources: the main table has no route to {source}; packets from {source} are not steered"
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
        inbound.mark = Some(inputs.config.kernel.path_mask.packet());
        state.rules.push(inbound);
        state
            .rules
            .push(incoming(place::MAIN, main_without_default(family)));
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

/// The incoming interfaces of a network: those by which the main table sends answers. Several
/// interfaces may each connect a part of the network (the private and the public subnet of one
/// VPC), and a host of any part is a source. Host routes are ignored, since a host route leads to a
/// container of this machine or to a single peer.
fn input_devices(facts: &HostFacts, source: &IpNet) -> BTreeSet<IfIndex> {
    let parts: BTreeSet<IfIndex> = facts
        .main_routes
        .iter()
        .filter(|route| {
            route.unicast
                && !Family::is_default(&route.dst)
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

/// Flows opened from outside through this host keep, answers included, the path of a host without
/// our rules.
fn keep_inbound(inputs: &Inputs, family: Family, sources: &[IpNet], chains: &mut Chains) {
    let inbound = inputs.config.kernel.path_mask.inbound();
    let mut matches = vec![Match::NotInputInterface("lo".to_owned()), Match::NewFlow];
    matches.extend(sources.iter().copied().map(Match::NotSource));
    chains.prerouting.push(FwRule {
        family: Some(family),
        matches,
        verdict: Statement::SetFlowMark(inbound),
    });
}

/// The addresses of this host behind the configured egress addresses, sorted.
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
