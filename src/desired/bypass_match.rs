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
    let second = out.is_some_and(|out| is_second_default(inputs, family, bypass, out));
    let differs = differs(inputs, family, bypass, out);
    let same = differs.is_none();
    if let Some(differs) = differs
        && !second
    {
        return differs;
    }
    let mut devices: Vec<String> = bypass
        .vias()
        .map(|via| inputs.facts.device_name(via.device))
        .collect();
    devices.dedup();
    let names = devices.join(" and ");
    let substitute = match family {
        Family::Ipv4 => {
            let why = if same {
                realm::same_look(&names)
            } else {
                format!("a further default route leaves by {names}, as the bypass path")
            };
            Match::Realm(realm::on_bypass_routes(numbers, family, &why, state))
        }
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

/// True if a default of the main table leaves by an interface of the bypass path other than the egress
/// interface: packets to partners take that way as soon as the egress interface has lost its default.
/// IPv6 routes carry no realm: there the next pass closes the way.
fn is_second_default(inputs: &Inputs, family: Family, bypass: &BypassPath, out: IfIndex) -> bool {
    let used = inputs.facts.default_path(family, None);
    let is_used = |device| {
        used.iter()
            .flat_map(BypassPath::vias)
            .any(|via| via.device == device)
    };
    let defaults = inputs.facts.defaults(family).into_iter();
    let devices = defaults.filter_map(|route| route.device);
    let mut others = devices.filter(|device| *device != out && !is_used(*device));
    family == Family::Ipv4 && others.any(|other| bypass.vias().any(|via| via.device == other))
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
