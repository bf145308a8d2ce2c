//! The host role: a server whose internet traffic leaves through NAT instances.

use std::net::IpAddr;

use super::{
    DesiredState, EgressPath, Inputs, KnownSlots, WORST_METRIC, by_realm, closed,
    counting::{self, Counting},
    desired, divert, gateway, inbound, landing, lookup, main_without_default, metric,
    pins::Pins,
    place, presence,
    realm::Realms,
    route, rule, special, spread,
};
use crate::config::{Gateway, WhenDown};
use crate::degraded::Part;
use crate::firewall::{Hook, Ruleset};
use crate::objects::{ForeignSelector, Leg, RouteTarget, RuleAction, Via};
use crate::ownership::Numbers;
use crate::types::{Family, PerFamily};

/// Adds the egress path, the rules and the marks to a state with bypass routes.
pub fn complete(inputs: &Inputs, state: &mut DesiredState) {
    let numbers = Numbers::of(inputs.config);
    let mut counting = Counting::default();
    let mut pins = PerFamily::default();
    for family in Family::ALL {
        if !inputs.available.get(family) {
            if inputs.config.egress.has_gateway(family) {
                state.notes.push(format!(
                    "{family}: the kernel has {family} disabled; the {family} egress gateways are not used"
                ));
            }
            continue;
        }
        egress(inputs, &numbers, family, state);
        let bypasses = inputs.config.select.families.contains(&family)
            && state.paths.get(family).bypass.is_some();
        let egresses = state.paths.get(family).egress != EgressPath::Main;
        if !bypasses && !egresses {
            continue;
        }
        let rule = |place, action| rule(&numbers, family, place, action);
        let mut inbound = rule(place::INBOUND, RuleAction::Goto(numbers.landing()));
        inbound.mark = Some(inputs.config.kernel.path_mask.packet());
        let main = rule(place::MAIN, main_without_default(family));
        let leads = bypasses && !divert::of_host(inputs, family, state);
        let mut bypass = leads.then(|| rule(place::BYPASS, lookup(numbers.bypass_table)));
        let egress = egresses.then(|| rule(place::EGRESS, lookup(numbers.egress_table)));
        let closed = closed::is_closed(inputs, family, state);
        let realms = (closed && family == Family::Ipv4).then(|| Realms::of(&numbers));
        let by_realm = realms.filter(|_| closed::is_by_realm(inputs));
        if let (Some(realms), Some(bypass)) = (realms, &mut bypass) {
            let realm = ForeignSelector::Realms(u32::from(realms.bypass().0));
            bypass.foreign_selectors.push(realm);
        }
        if closed && bypasses {
            state.rules.extend(closed::proof(inputs, &numbers, family));
        }
        state.rules.extend([inbound, main]);
        state.rules.extend(bypass.into_iter().chain(egress));
        state.rules.push(landing(&numbers, family));
        let pinned = (closed && inputs.config.egress.pins())
            .then(|| Pins::of(inputs, family, by_realm, &mut state.notes));
        let paths = match by_realm {
            Some(realms) => Some(by_realm::paths(realms, pinned.as_ref())),
            None => counting::of_host(inputs, &numbers, family, pinned.is_some(), state),
        };
        if let Some(realms) = by_realm {
            by_realm::label(realms, pinned.as_ref(), &numbers, state);
        }
        if let Some(mut paths) = paths {
            if let Some(pinned) = &pinned {
                pinned.complete(inputs, &numbers, state);
                let conditions = paths.bypass.iter_mut().chain(&mut paths.egress);
                conditions.for_each(|all| all.extend(pinned.without_exempt(inputs)));
            }
            counting.add(inputs.config, family, paths, pinned.as_ref());
            *pins.get_mut(family) = pinned;
        }
    }
    if !state.rules.is_empty() {
        let mut policy = inbound::marks(inputs, state);
        for family in Family::ALL {
            if let Some(pins) = pins.get(family) {
                pins.mark(&mut policy);
                policy.extend(Hook::ForwardEnded, pins.resets());
            }
        }
        counting.complete(inputs.backend, &mut policy);
        // An error carries the mark of its flow: the drop comes before the counts.
        policy.lead(Hook::Prerouting, inbound::redirects(inputs));
        closed::complete(inputs, &numbers, &pins, state, &mut policy);
        state.firewall = Some(policy);
    }
}

/// The firewall of the settings with the gateways that leave; `None` if none leaves. The realms of
/// iptables name the slots, so that its rules pass such flows by themselves.
pub fn on_the_way(inputs: &Inputs) -> Option<Ruleset> {
    let leaving = Family::ALL.map(|family| {
        let configured = inputs.config.egress.gateways_of(family);
        inputs.slots.leaving(family, &configured)
    });
    let leaving = leaving.concat();
    if leaving.is_empty() || closed::is_by_realm(inputs) {
        return None;
    }
    let mut config = inputs.config.clone();
    let leaving = leaving.into_iter().map(Gateway::from);
    config.egress.gateways.extend(leaving);
    let slots = KnownSlots {
        leading: PerFamily::default(),
        ..inputs.slots.clone()
    };
    let inputs = Inputs {
        config: &config,
        slots,
        ..inputs.clone()
    };
    desired(&inputs).firewall
}

fn egress(inputs: &Inputs, numbers: &Numbers, family: Family, state: &mut DesiredState) {
    let config = &inputs.config.egress;
    let gateways = config.gateways_of(family);
    let closed = config.close.contains(&family);
    if gateways.is_empty() && !closed {
        if !config.gateways.is_empty() {
            state.notes.push(format!(
                "{family}: no egress gateway: partners reached over {family} see this host's own address; \
                 [egress] close = [\"{family}\"] blocks the family"
            ));
        }
        return;
    }
    let mut usable = usable(inputs, family, &gateways, state);
    leave_out_legs_without_carrier(inputs, &mut usable, state);
    let table = numbers.egress_table;
    let default = family.default_prefix();
    let choice = spread::of(inputs, family, &usable);
    // With `spread = "flow"` the gateways share one multipath route, which one message replaces as a whole. A nexthop
    // group would be one message too, but the kernel deletes nexthop objects for good when the
    // link loses its carrier, and the routes over them as well.
    //
    // With `ignore_routes_with_linkdown`, IPv6 refuses a new route whose gateway is on a link
    // without carrier, unless the leg is marked onlink. `gateway::egress` has found each gateway
    // in a connected network, so the mark skips no check.
    let onlink = choice.used.len() > 1 && family == Family::Ipv6;
    let leg = |(address, weight): &(IpAddr, u8)| {
        let via = usable.iter().find(|via| via.gateway == Some(*address))?;
        let onlink = onlink || via.onlink;
        Some(Leg {
            weight: u16::from(*weight),
            ..Leg::only(Via { onlink, ..*via })
        })
    };
    if let Some(target) = RouteTarget::through(choice.used.iter().filter_map(leg).collect()) {
        state
            .routes
            .push(route(numbers, table, default, metric(family), target));
    }
    if config.when_down == WhenDown::Unreachable || closed {
        state.routes.push(route(
            numbers,
            table,
            default,
            WORST_METRIC,
            RouteTarget::Unreachable,
        ));
    }
    for prefix in special::thrown(family, inputs.vpc_cidrs) {
        state.routes.push(route(
            numbers,
            table,
            prefix,
            metric(family),
            RouteTarget::Throw,
        ));
    }
    let paths = state.paths.get_mut(family);
    paths.unused = choice.unused;
    paths.egress = if !choice.used.is_empty() {
        EgressPath::Gateways(choice.used.iter().map(|(address, _)| *address).collect())
    } else if config.when_down == WhenDown::Bypass && !closed {
        EgressPath::Main
    } else {
        EgressPath::Closed
    };
}

/// The next hops through the usable gateways. The other gateways are named, with the consequence.
fn usable(
    inputs: &Inputs,
    family: Family,
    gateways: &[IpAddr],
    state: &mut DesiredState,
) -> Vec<Via> {
    let config = &inputs.config.egress;
    let mut usable = Vec::new();
    let mut faults = Vec::new();
    for gateway in gateways {
        match gateway::egress(inputs, *gateway) {
            Ok(via) => usable.push(via),
            Err(fault) => faults.push(fault),
        }
    }
    if family == Family::Ipv6 && presence::ipv6_is_off(inputs.facts) && !faults.is_empty() {
        // The egress is closed in case IPv6 is switched on; until then no packet can leave.
        state.notes.push(format!(
            "{family}: {}; the {family} egress gateways are not used",
            presence::IPV6_IS_OFF
        ));
        return usable;
    }
    let consequence = if !usable.is_empty() {
        "the other gateways are used".to_owned()
    } else if config.when_down == WhenDown::Bypass && !config.close.contains(&family) {
        format!("{family} partners see this host's own address ([egress] when_down = \"bypass\")")
    } else if state.paths.get(family).bypass.is_some() {
        format!("all {family} traffic except storage is refused")
    } else {
        format!("all {family} traffic to the internet is refused")
    };
    state.degraded.extend(
        faults
            .iter()
            .map(|fault| fault.degrades(Part::Egress, family, &consequence)),
    );
    usable
}

/// Removes gateways behind a link without carrier, as long as another gateway has a link with carrier.
/// The kernel sends a share of the flows to such a gateway unless the sysctl
/// `ignore_routes_with_linkdown` is 1 (default 0). The event of the link starts a pass that adds the
/// gateway again.
fn leave_out_legs_without_carrier(
    inputs: &Inputs,
    usable: &mut Vec<Via>,
    state: &mut DesiredState,
) {
    let facts = inputs.facts;
    let has_carrier = |via: &Via| facts.link(via.device).is_none_or(|link| link.carrier);
    if !usable.iter().any(has_carrier) {
        return;
    }
    usable.retain(|via| {
        let keep = has_carrier(via);
        if let (false, Some(gateway)) = (keep, via.gateway) {
            let device = facts.device_name(via.device);
            state.notes.push(format!(
                "[egress] gateways: {gateway} is left out: {device} has no carrier"
            ));
        }
        keep
    });
}
