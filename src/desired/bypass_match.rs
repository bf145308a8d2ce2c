//! The matches by which a NAT rule recognises the bypass path.

use super::{DesiredState, Inputs, realm};
use crate::firewall::Match;
use crate::objects::{BypassPath, Via};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// The matches for the bypass path, one list for each alternative: the routing decision (interface,
/// next hop) where the decision differs between the paths, else a substitute (realm, or a list of
/// prefixes).
pub fn ask(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    bypass: &BypassPath,
    out: Option<IfIndex>,
    state: &mut DesiredState,
) -> Vec<Vec<Match>> {
    if let Some(differs) = differs(inputs, family, bypass, out) {
        return differs;
    }
    let mut devices: Vec<String> = bypass
        .vias()
        .map(|via| inputs.facts.device_name(via.device))
        .collect();
    devices.dedup();
    let names = devices.join(" and ");
    let substitute = match family {
        Family::Ipv4 => Match::Realm(realm::on_bypass_routes(numbers, family, &names, state)),
        Family::Ipv6 => {
            let prefixes = inputs
                .prefixes
                .map(|prefixes| prefixes.get(family).clone())
                .unwrap_or_default();
            state.notes.push(format!(
                "{family}: both paths leave by {names} and IPv6 routes carry no realm; the firewall lists the {} prefixes itself",
                prefixes.len()
            ));
            Match::DestinationAnyOf(prefixes)
        }
    };
    let leaves = |device| vec![Match::OutputInterface(device), substitute.clone()];
    devices.into_iter().map(leaves).collect()
}

/// Matches on the routing decision that hold for the bypass path only, one list for each next hop;
/// `None` if a decision is equal on both paths, or if the backend cannot match the difference. While
/// the egress interface `out` is unknown, only the next hop counts as a difference.
pub fn differs(
    inputs: &Inputs,
    family: Family,
    bypass: &BypassPath,
    out: Option<IfIndex>,
) -> Option<Vec<Vec<Match>>> {
    let mut found: Vec<Vec<Match>> = Vec::new();
    for via in bypass.vias() {
        let matches = hop_differs(inputs, family, via, out)?;
        if !found.contains(&matches) {
            found.push(matches);
        }
    }
    Some(found)
}

fn hop_differs(
    inputs: &Inputs,
    family: Family,
    via: Via,
    out: Option<IfIndex>,
) -> Option<Vec<Match>> {
    let leaves = Match::OutputInterface(inputs.facts.device_name(via.device));
    if out.is_some_and(|out| out != via.device) {
        return Some(vec![leaves]);
    }
    let default = inputs.facts.default_path(family, None);
    let by_default = |gateway| {
        let mut hops = default.iter().flat_map(BypassPath::vias);
        hops.any(|hop| hop.gateway == Some(gateway))
    };
    // No rule can compare the next hop of an IPv4 packet with an IPv6 gateway (RFC 8950).
    match via.gateway {
        Some(gateway)
            if inputs.backend.matches_next_hop()
                && Family::of(gateway) == family
                && !by_default(gateway) =>
        {
            Some(vec![leaves, Match::NextHop(gateway)])
        }
        _ => None,
    }
}
