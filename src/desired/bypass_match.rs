//! The matches by which a NAT rule recognises the bypass path.

use super::{DesiredState, Inputs, disjoint, fault::Fault, realm};
use crate::degraded::Part;
use crate::facts::MainRoute;
use crate::firewall::Match;
use crate::objects::{BypassPath, Via};
use crate::ownership::Numbers;
use crate::types::{Family, IfIndex};

/// The limit for the administrator's routes by one interface: each change of a route replaces the
/// rules, and a routing daemon has thousands.
const MOST_BESIDE: usize = 64;

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
    let differs = differs(inputs, family, bypass, out);
    let same = differs.is_none();
    let doubt = doubt(inputs, family, bypass, out);
    if let Some(differs) = differs
        && (doubt.is_none() || lists_nothing(inputs, family))
    {
        return differs;
    }
    let devices = devices(inputs, bypass);
    let names = devices.join(" and ");
    let why = doubt.filter(|_| !same).map(|doubt| doubt.why(&names));
    let substitute = match family {
        Family::Ipv4 => {
            let why = why.unwrap_or_else(|| realm::same_look(&names));
            Match::Realm(realm::on_bypass_routes(numbers, family, &why, state))
        }
        Family::Ipv6 => {
            let prefixes = inputs
                .prefixes
                .map(|prefixes| prefixes.get(family).clone())
                .unwrap_or_default();
            let why = why.unwrap_or_else(|| format!("both paths leave by {names}"));
            state.means.push(format!(
                "{family}: {why} and IPv6 routes carry no realm; the firewall lists the {} prefixes itself",
                prefixes.len()
            ));
            Match::DestinationAnyOf(prefixes)
        }
    };
    let leaves = |device| vec![Match::OutputInterface(device), substitute.clone()];
    devices.into_iter().map(leaves).collect()
}

/// True for a substitute of the routing decision.
pub fn is_substitute(condition: &Match) -> bool {
    matches!(condition, Match::Realm(_) | Match::DestinationAnyOf(_))
}

/// The administrator's own routes by interfaces of the bypass path alone, one list for each interface.
/// The substitutes don't match these packets, and an interface does.
pub fn beside(
    inputs: &Inputs,
    family: Family,
    bypass: &BypassPath,
    out: Option<IfIndex>,
    asks: &[Vec<Match>],
    state: &mut DesiredState,
) -> Vec<Vec<Match>> {
    let mut found = Vec::new();
    if !asks.iter().flatten().any(is_substitute) {
        return found;
    }
    let mut indices: Vec<IfIndex> = bypass.vias().map(|via| via.device).collect();
    indices.dedup();
    for index in indices.into_iter().filter(|index| Some(*index) != out) {
        let own = inputs.facts.narrow_routes(family);
        let own = own.filter(|route| route.device == Some(index));
        let own = disjoint(own.map(|route| route.dst.trunc()).collect());
        let device = inputs.facts.device_name(index);
        if own.len() > MOST_BESIDE {
            let fault = Fault::TooManyRoutes {
                most: MOST_BESIDE,
                device,
            };
            let dropped = "new connections from [nat] sources to their networks are dropped";
            let missing = fault.degrades(Part::Forwarding, family, dropped);
            state.degraded.push(missing);
        } else if !own.is_empty() {
            found.push(vec![
                Match::OutputInterface(device),
                Match::DestinationAnyOf(own),
            ]);
        }
    }
    found
}

/// The interfaces of the path.
fn devices(inputs: &Inputs, bypass: &BypassPath) -> Vec<String> {
    let vias = bypass.vias();
    let mut devices: Vec<String> = vias
        .map(|via| inputs.facts.device_name(via.device))
        .collect();
    devices.dedup();
    devices
}

/// True if a list of prefixes would be empty although the kernel has bypass routes: those of a
/// document that this host has lost.
fn lists_nothing(inputs: &Inputs, family: Family) -> bool {
    family == Family::Ipv6 && inputs.prefixes.is_none() && inputs.last_bypass.ipv6.is_some()
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

/// The reason for which packets to partners may get the routing decision of the bypass path before
/// the next pass: when the default in use goes, or when another one arrives.
#[derive(Clone, Copy)]
enum Doubt {
    /// A default of the main table besides the one in use looks like the bypass path.
    SecondDefault,
    /// No default leaves by the egress interface now.
    NoUplink,
}

impl Doubt {
    fn why(self, devices: &str) -> String {
        match self {
            Doubt::SecondDefault => {
                format!("a further default route leaves by {devices}, as the bypass path")
            }
            Doubt::NoUplink => {
                "the main table has no default route by the egress interface".to_owned()
            }
        }
    }
}

fn doubt(
    inputs: &Inputs,
    family: Family,
    bypass: &BypassPath,
    out: Option<IfIndex>,
) -> Option<Doubt> {
    let used = inputs.facts.used_default(family);
    if out.is_none() || used.and_then(|used| used.device) != out {
        return Some(Doubt::NoUplink);
    }
    let alike = |default: &MainRoute| {
        bypass.vias().any(|via| {
            let same_hop = via.gateway == default.gateway || !inputs.backend.matches_next_hop();
            Some(via.device) == default.device && (default.device != out || same_hop)
        })
    };
    let defaults = inputs.facts.defaults(family).into_iter();
    defaults
        .filter(|default| Some(*default) != used)
        .any(alike)
        .then_some(Doubt::SecondDefault)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, parse};
    use crate::desired::{desired, shares::Shares};
    use crate::facts::{HostFacts, Link};
    use crate::types::{Metric, PerFamily};
    use ipnet::IpNet;

    /// A NAT instance whose bypass interface, `eth1`, has a second default, and `routes` of the
    /// administrator.
    fn state(routes: u32, adapt: impl FnOnce(&mut Inputs)) -> DesiredState {
        let route = |dst: &str, gateway: Option<&str>, device, metric| MainRoute {
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            device: Some(IfIndex(device)),
            metric: Metric(metric),
            ..MainRoute::unicast(dst.parse().unwrap())
        };
        let mut main_routes = vec![
            route("::/0", Some("fe80::1"), 2, 512),
            route("::/0", Some("fe80::2"), 3, 522),
            route("2001:db8:1::/64", None, 2, 256),
            route("2001:db8:2::/64", None, 3, 256),
            route("fd00::/64", None, 2, 256),
        ];
        main_routes.extend((1..routes).map(|n| {
            let dst = format!("2001:db8:ff:{n:x}::/64");
            route(&dst, Some("fe80::2"), 3, 1024)
        }));
        let mut facts = HostFacts::of_one_interface("2001:db8:1::10/64", main_routes);
        facts.links.push(Link {
            index: IfIndex(3),
            name: "eth1".to_owned(),
            ..facts.links[0].clone()
        });
        let text = "role = \"nat\"\n[nat]\nsources = [\"fd00::/64\"]\negress_addresses = [\"2001:db8:1::10\"]\n[bypass]\ninterface = \"eth1\"\n";
        let config = parse(text, "test").unwrap();
        let prefixes = PerFamily {
            ipv4: Vec::new(),
            ipv6: vec!["2600:1fa0:8000::/39".parse().unwrap()],
        };
        let shares = Shares::default();
        let mut inputs = Inputs {
            prefixes: Some(&prefixes),
            ..Inputs::of_one_family((&config, &facts, &shares), Role::Nat, Family::Ipv6)
        };
        adapt(&mut inputs);
        desired(&inputs)
    }

    /// The destinations in the rules with the bypass translation; `None` for a rule by interface.
    fn translated(state: &DesiredState) -> Vec<Option<Vec<IpNet>>> {
        let chains = state.firewall.iter().flat_map(|policy| &policy.chains);
        let rules = chains.flat_map(|chain| &chain.rules);
        let bypass = rules.filter(|rule| rule.verdict == crate::firewall::Statement::Masquerade);
        let listed = |condition: &Match| match condition {
            Match::DestinationAnyOf(prefixes) => Some(prefixes.clone()),
            _ => None,
        };
        bypass
            .map(|rule| rule.matches.iter().find_map(listed))
            .collect()
    }

    #[test]
    fn second_default_of_ipv6_makes_rules_list_prefixes_and_own_routes() {
        let state = state(1, |_| {});
        let nets = |net: &str| Some(vec![net.parse().unwrap()]);
        let listed = [nets("2600:1fa0:8000::/39"), nets("2001:db8:2::/64")];
        assert_eq!(translated(&state), listed);
        assert!(state.degraded.is_empty(), "{:?}", state.degraded);
    }

    #[test]
    fn too_many_own_routes_beside_a_second_default_are_named() {
        let most = u32::try_from(MOST_BESIDE).unwrap();
        assert!(state(most, |_| {}).degraded.is_empty());
        let state = state(most + 1, |_| {});
        assert_eq!(translated(&state).len(), 1);
        let reason = state.degraded[0].to_string();
        assert!(
            reason.contains("leave by eth1 beside a default route"),
            "{reason}"
        );
    }

    #[test]
    fn routes_of_a_lost_document_keep_the_translation_by_interface() {
        let via = Via {
            gateway: Some("fe80::2".parse().unwrap()),
            device: IfIndex(3),
            onlink: false,
        };
        let state = state(1, |inputs| {
            inputs.prefixes = None;
            inputs.last_bypass.ipv6 = Some(BypassPath::single(via, None));
        });
        assert_eq!(translated(&state), [None]);
    }
}
