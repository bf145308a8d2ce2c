//! The NAT role: an instance that forwards and translates packets of private networks.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    DesiredState, EgressPath, InputPath, Inputs, WORST_METRIC, addresses,
    chains::Chains,
    divert,
    fault::Fault,
    landing, lookup, main_without_default, place, route, rule, special, switch,
    translate::{close, translate},
};
use crate::config::{AutoOr, NatBypass};
use crate::degraded::{Degradation, Part};
use crate::facts::HostFacts;
use crate::firewall::{FwRule, Match, Statement};
use crate::objects::{RouteTarget, Rule, RuleAction};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex, Priority};

/// Adds the rules and the translation to a state with bypass routes.
pub fn complete(inputs: &Inputs, state: &mut DesiredState) {
    let numbers = Numbers::of(inputs.config);
    let mut chains = Chains::default();
    let all = sources(inputs).unwrap_or_else(|fault| {
        without_sources(inputs, &fault, state, &mut chains);
        Vec::new()
    });
    for family in Family::ALL {
        let sources: Vec<IpNet> = all
            .iter()
            .copied()
            .filter(|source| Family::of_net(source) == family)
            .collect();
        if sources.is_empty() || !inputs.available.get(family) {
            // Routes without rules have no effect, so the bypass path lacks nothing either. The
            // egress table closes the path of unknown sources.
            state.routes.retain(|route| {
                route.key.family() != family || route.key.table == numbers.egress_table
            });
            state.paths.get_mut(family).bypass = None;
            state.degraded.retain(|missing| {
                missing.family != Some(family)
                    || !matches!(missing.part, Part::Bypass | Part::Selection)
            });
            continue;
        }
        steer(inputs, &numbers, family, &sources, state);
        keep_inbound(inputs, family, &sources, &mut chains);
        translate(inputs, family, &sources, state, &mut chains);
        if divert::of_nat(inputs, family, state) {
            without_bypass_rules(&numbers, family, state);
        }
        let translates = addresses::configured(inputs, family).next().is_some();
        if translates {
            switch::add(inputs, family, &sources, state, &mut chains);
        }
        if let Some(reason) = inputs.unfiltered.get(family) {
            close_by_routes(inputs, &numbers, family, &sources, reason, state);
        }
    }
    // Translation is independent of steering: [select] families may omit a family.
    if !state.rules.is_empty() || !chains.nat.is_empty() || !chains.guard.is_empty() {
        state.firewall = Some(chains.into_ruleset(inputs));
    }
}

/// Closes the egress path while the sources are unknown: packets from private space must not leave
/// untranslated.
fn without_sources(inputs: &Inputs, fault: &Fault, state: &mut DesiredState, chains: &mut Chains) {
    let closed = "forwarded packets from private networks to the internet are dropped";
    state
        .degraded
        .push(fault.degrades(Part::Translation, None, closed));
    for family in Family::ALL {
        let mut egress = inputs.config.nat.egress_addresses.iter();
        let translates = egress.any(|address| Family::of(*address) == family);
        if translates && *inputs.available.get(family) {
            let private = special::local_space(family);
            keep_inbound(inputs, family, &private, chains);
            for source in &private {
                close(family, *source, None, &private, chains);
            }
            switch::add(inputs, family, &private, state, chains);
            if let Some(reason) = inputs.unfiltered.get(family) {
                let numbers = Numbers::of(inputs.config);
                close_by_routes(inputs, &numbers, family, &private, reason, state);
            }
        }
        *state.frozen.get_mut(family) = true;
    }
}

/// Closes the egress path of a family whose packets no firewall translates: packets that come in
/// from the sources find an unreachable default. Networks with a route of their own in the main
/// table stay reachable, and so does storage where the bypass path needs no translation.
fn close_by_routes(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    sources: &[IpNet],
    reason: &str,
    state: &mut DesiredState,
) {
    if addresses::configured(inputs, family).next().is_none() {
        return;
    }
    let steered = devices_of(&state.paths.get(family).inputs);
    let found = input_paths(inputs, sources);
    let mut devices = devices_of(&found);
    let open = devices.split_off(devices.len().min(place::MOST_CLOSED));
    for (index, device) in devices.into_iter().enumerate() {
        let (main, egress) = match index.checked_sub(place::MOST) {
            None => (place::MAIN + index as u32, place::EGRESS + index as u32),
            Some(further) => {
                let at = place::FURTHER + 2 * further as u32;
                (at, at + 1)
            }
        };
        let incoming = |at: u32, action: RuleAction| Rule {
            iif: Some(device.clone()),
            ..rule(numbers, family, at, action)
        };
        if !steered.contains(&device) {
            let action = main_without_default(family);
            state.rules.push(incoming(main, action));
        }
        let action = lookup(numbers.egress_table);
        state.rules.push(incoming(egress, action));
    }
    let mut effect = "forwarded packets to partners are refused by routes";
    if inputs.config.nat.bypass != NatBypass::None {
        // Storage must not see a private source either.
        effect = "forwarded packets to partners and storage are refused by routes";
        without_bypass_rules(numbers, family, state);
        state.paths.get_mut(family).bypass = None;
    }
    state.routes.push(route(
        numbers,
        numbers.egress_table,
        family.default_prefix(),
        WORST_METRIC,
        RouteTarget::Unreachable,
    ));
    let paths = state.paths.get_mut(family);
    paths.inputs = found;
    paths.egress = EgressPath::Closed;
    paths.leaves_by = None;
    let mut closed = format!("{reason}; {effect}");
    if !open.is_empty() {
        let text = format!(", but leave untranslated from {}", open.join(", "));
        closed.push_str(&text);
    }
    state
        .degraded
        .push(Degradation::new(Part::Translation, family, closed));
}

fn without_bypass_rules(numbers: &Numbers, family: Family, state: &mut DesiredState) {
    let bypass = lookup(numbers.bypass_table);
    let leads_there = |rule: &Rule| rule.family == family && rule.action == bypass;
    state.rules.retain(|rule| !leads_there(rule));
}

/// The private networks for which this host forwards packets.
fn sources(inputs: &Inputs) -> Result<Vec<IpNet>, Fault> {
    let mut sources: Vec<IpNet> = match &inputs.config.nat.sources {
        AutoOr::Set(sources) => sources.clone(),
        AutoOr::Auto if inputs.vpc_cidrs.is_empty() => return Err(Fault::NoSources),
        AutoOr::Auto => inputs.vpc_cidrs.to_vec(),
    };
    sources.sort();
    sources.dedup();
    Ok(sources)
}

/// Adds the policy rules, limited to packets that come in from our sources: this host's own traffic
/// keeps the main table.
fn steer(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    sources: &[IpNet],
    state: &mut DesiredState,
) {
    if !inputs.config.select.families.contains(&family) {
        return;
    }
    let mut paths = input_paths(inputs, sources);
    let has_input = |source: &&IpNet| paths.iter().any(|path| path.source == **source);
    for source in sources.iter().filter(|source| !has_input(source)) {
        state.notes.push(format!(
            "[nat] sources: the main table has no route to {source}; packets from {source} follow the main table alone"
        ));
    }
    let mut devices = devices_of(&paths);
    if devices.len() > place::MOST {
        let fault = Fault::TooManyInputs {
            count: devices.len(),
            most: place::MOST,
        };
        let left_out = devices.split_off(place::MOST);
        let consequence = format!(
            "storage traffic from {} takes the egress path",
            left_out.join(", ")
        );
        state
            .degraded
            .push(fault.degrades(Part::Bypass, family, &consequence));
        paths.retain(|path| devices.contains(&path.device));
    }
    for (index, device) in devices.iter().enumerate() {
        let incoming = |at: u32, action: RuleAction| Rule {
            priority: Priority(numbers.priority.0 + at + index as u32),
            iif: Some(device.clone()),
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
}

/// The sources with their incoming interfaces.
fn input_paths(inputs: &Inputs, sources: &[IpNet]) -> Vec<InputPath> {
    let of_source = |source: &IpNet| {
        let source = *source;
        let devices = input_devices(inputs.facts, &source).into_iter();
        devices.map(move |device| InputPath {
            device: inputs.facts.device_name(device),
            source,
        })
    };
    sources.iter().flat_map(of_source).collect()
}

/// The interfaces, sorted.
fn devices_of(paths: &[InputPath]) -> Vec<String> {
    let mut devices: Vec<String> = paths.iter().map(|path| path.device.clone()).collect();
    devices.sort_unstable();
    devices.dedup();
    devices
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
    let mut matches = vec![Match::NewFlow, Match::NotInputInterface("lo".to_owned())];
    matches.extend(sources.iter().copied().map(Match::NotSource));
    chains.prerouting.push(FwRule {
        family: Some(family),
        matches,
        verdict: Statement::SetFlowMark(inbound),
    });
}
