//! The matches by which a NAT rule recognises the bypass path.

use super::{DesiredState, Inputs, realm};
use crate::firewall::Match;
use crate::objects::Via;
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// The matches for the bypass path: the routing decision (interface, next hop) where the decision
/// differs between the paths, else a substitute (realm, or a list of prefixes).
pub fn ask(
    inputs: &Inputs,
    numbers: &Numbers,
    family: Family,
    bypass: Via,
    out: IfIndex,
    state: &mut DesiredState,
) -> Vec<Match> {
    if let Some(differs) = differs(inputs, family, bypass, out) {
        return differs;
    }
    let device = inputs.facts.device_name(bypass.device);
    match family {
        Family::Ipv4 => {
            let realm = realm::on_bypass_routes(numbers, family, &device, state);
            vec![Match::OutputInterface(device), Match::Realm(realm)]
        }
        Family::Ipv6 => {
            let prefixes = inputs
                .prefixes
                .map(|prefixes| prefixes.get(family).clone())
                .unwrap_or_default();
            state.notes.push(format!(
                "{family}: both paths leave by {device} and IPv6 routes carry no realm; the firewall lists the {} prefixes itself",
                prefixes.len()
            ));
            vec![
                Match::OutputInterface(device),
                Match::DestinationAnyOf(prefixes),
            ]
        }
    }
}

/// Matches on the routing decision that hold for the bypass path only; `None` if the decisions are
/// equal, or if the backend cannot match the difference.
pub fn differs(inputs: &Inputs, family: Family, bypass: Via, out: IfIndex) -> Option<Vec<Match>> {
    let leaves = Match::OutputInterface(inputs.facts.device_name(bypass.device));
    if bypass.device != out {
        return Some(vec![leaves]);
    }
    let main_gateway = inputs
        .facts
        .defaults(family)
        .first()
        .and_then(|route| route.gateway);
    // No rule can compare the next hop of an IPv4 packet with an IPv6 gateway (RFC 8950).
    match bypass.gateway {
        Some(gateway)
            if inputs.backend.matches_next_hop()
                && Family::of(gateway) == family
                && Some(gateway) != main_gateway =>
        {
            Some(vec![leaves, Match::NextHop(gateway)])
        }
        _ => None,
    }
}
