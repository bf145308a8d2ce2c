//! Resolves the gateways: router and link.

use std::net::IpAddr;

use super::{Inputs, fault::Fault, presence};
use crate::config::AutoOr;
use crate::facts::{HostFacts, Link};
use crate::objects::{BypassPath, Via};
use crate::types::{Family, IfIndex};

/// A family's bypass path.
///
/// # Errors
/// The family has no such path now.
pub fn bypass(
    inputs: &Inputs,
    family: Family,
    notes: &mut Vec<String>,
) -> Result<BypassPath, Fault> {
    let facts = inputs.facts;
    let device = match &inputs.config.bypass.interface {
        AutoOr::Auto => None,
        AutoOr::Set(name) => Some(interface(facts, "[bypass] interface", name)?),
    };
    if let AutoOr::Set(gateway) = inputs.config.bypass.gateway.get(family) {
        let path = configured(inputs, *gateway, device, notes)?;
        return Ok(with_own_source(facts, family, path, notes));
    }
    if let Some(path) = facts.default_path(family, device) {
        let path = without_egress(inputs, family, path, notes)?;
        return Ok(with_own_source(facts, family, path, notes));
    }
    if let Some(path) = last_bypass(inputs, family) {
        notes.push(format!(
            "{family}: the main table has no default route at the moment; the last known bypass gateway {} stays in use",
            describe(facts, &path)
        ));
        return Ok(with_own_source(facts, family, path, notes));
    }
    Err(Fault::NoBypassGateway { family })
}

/// The present path of our bypass routes, as far as the kernel still accepts routes through it.
///
/// The path is read from our routes: without routes, this pass would know the path and the next
/// pass would not.
pub fn last_bypass(inputs: &Inputs, family: Family) -> Option<BypassPath> {
    let has_routes = inputs
        .prefixes
        .is_none_or(|prefixes| !prefixes.get(family).is_empty());
    let last = inputs.last_bypass.get(family).as_ref();
    last.filter(|_| has_routes)
        .and_then(|last| reachable(inputs.facts, last))
}

/// The path through the gateway of the settings. The options of a main default belong to its next
/// hops: the path has the options if the gateway is one of these.
fn configured(
    inputs: &Inputs,
    gateway: IpAddr,
    device: Option<IfIndex>,
    notes: &mut Vec<String>,
) -> Result<BypassPath, Fault> {
    let (facts, family) = (inputs.facts, Family::of(gateway));
    let named = Named {
        key: "[bypass] gateway",
        gateway,
        device,
        onlink: inputs.config.bypass.onlink,
    };
    let refused = match explicit(inputs, &named) {
        Ok(via) => {
            let same = |hop: Via| (hop.gateway, hop.device) == (via.gateway, via.device);
            let default = facts
                .default_path(family, Some(via.device))
                .filter(|path| path.vias().any(same));
            return Ok(BypassPath::single(
                via,
                default.and_then(|path| path.options),
            ));
        }
        Err(refused) if refused.is_off_link() => refused,
        Err(refused) => return Err(refused),
    };
    // The default that shows the gateway as onlink may be gone for a moment (a DHCP restart).
    let kept = inputs.last_bypass.get(family).as_ref().filter(|path| {
        let via = path.first();
        via.gateway == Some(gateway)
            && via.onlink
            && (device.is_none() || device == Some(via.device))
            && facts.reaches(&via)
    });
    let Some(kept) = kept else {
        return Err(refused);
    };
    notes.push(format!(
        "{family}: the main table has no onlink default through {gateway} at the moment; the bypass routes through {gateway} stay in use"
    ));
    Ok(kept.clone())
}

/// Leaves out next hops that are egress gateways: storage traffic would go through the NAT.
fn without_egress(
    inputs: &Inputs,
    family: Family,
    path: BypassPath,
    notes: &mut Vec<String>,
) -> Result<BypassPath, Fault> {
    let egress = &inputs.config.egress;
    let nat = |via: Via| via.gateway.filter(|gateway| egress.is_gateway(*gateway));
    let Some(gateway) = path.vias().find_map(nat) else {
        return Ok(path);
    };
    let legs = path.legs().iter().filter(|leg| nat(leg.via).is_none());
    let left = BypassPath::new(legs.copied().collect(), path.options.clone())
        .ok_or(Fault::BypassIsEgress { gateway })?;
    notes.push(format!(
        "{family}: the main default also leaves through {gateway}, an egress gateway: the bypass path leaves this next hop out"
    ));
    Ok(left)
}

/// The next hops of a path that the kernel would accept now.
fn reachable(facts: &HostFacts, path: &BypassPath) -> Option<BypassPath> {
    let legs = path.legs().iter().filter(|leg| facts.reaches(&leg.via));
    BypassPath::new(legs.copied().collect(), path.options.clone())
}

/// Leaves out a preferred source that is no address of this host any more: the kernel would refuse
/// every route of the path with `EINVAL`.
fn with_own_source(
    facts: &HostFacts,
    family: Family,
    mut path: BypassPath,
    notes: &mut Vec<String>,
) -> BypassPath {
    let Some(options) = &path.options else {
        return path;
    };
    let Some(source) = options.source else {
        return path;
    };
    if path
        .vias()
        .all(|via| facts.accepts_source(source, via.device))
    {
        return path;
    }
    notes.push(format!(
        "{family}: the main default prefers the source address {source}, which is not on this host any more: the bypass routes have no preferred source"
    ));
    path.options = options.without_source();
    path
}

/// A path for people.
pub fn describe(facts: &HostFacts, path: &BypassPath) -> String {
    let hops = path.vias().map(|via| match via.gateway {
        Some(gateway) => format!("{gateway} on {}", facts.device_name(via.device)),
        None => facts.device_name(via.device),
    });
    hops.collect::<Vec<_>>().join(" and ")
}

/// The interface named in the settings.
pub fn interface(facts: &HostFacts, key: &'static str, name: &str) -> Result<IfIndex, Fault> {
    facts
        .link_named(name)
        .map(|link| link.index)
        .ok_or_else(|| Fault::NoInterface {
            key,
            name: name.to_owned(),
            present: facts
                .links
                .iter()
                .map(Link::names)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

struct Named {
    key: &'static str,
    gateway: IpAddr,
    device: Option<IfIndex>,
    /// `onlink = true`.
    onlink: bool,
}

/// The next hop for a gateway from the settings: on the link of the connected network that contains
/// the gateway, or onlink if a main default or the settings say so.
fn explicit(inputs: &Inputs, named: &Named) -> Result<Via, Fault> {
    let (facts, key, gateway) = (inputs.facts, named.key, named.gateway);
    // The kernel accepts such a route outside the main table, and the packets are lost.
    if facts.is_own(gateway) {
        return Err(Fault::OwnGateway { key, gateway });
    }
    let via = |device, onlink| Via {
        gateway: Some(gateway),
        device,
        onlink,
    };
    if let IpAddr::V6(v6) = gateway
        && v6.is_unicast_link_local()
    {
        let device = named
            .device
            .ok_or(Fault::LinkLocalNeedsInterface { key, gateway })?;
        return Ok(via(device, false));
    }
    if let Some(device) = facts.on_link(gateway, named.device) {
        return Ok(via(device, false));
    }
    let fits = |device| named.device.is_none() || named.device == device;
    let vouched = facts
        .defaults(Family::of(gateway))
        .into_iter()
        .find(|hop| hop.onlink && hop.gateway == Some(gateway) && fits(hop.device));
    if let Some(device) = vouched.and_then(|hop| hop.device) {
        return Ok(via(device, true));
    }
    if named.onlink {
        let device = named.device.or_else(|| onlink_device(inputs, gateway));
        return device
            .map(|device| via(device, true))
            .ok_or(Fault::OnlinkWithoutLink { key, gateway });
    }
    Err(off_link(facts, key, gateway, named.device))
}

/// The reason for which no connected network holds a gateway.
fn off_link(
    facts: &HostFacts,
    key: &'static str,
    gateway: IpAddr,
    device: Option<IfIndex>,
) -> Fault {
    let family = Family::of(gateway);
    let on_device = |link| device.is_none_or(|device| device == link);
    let near = facts.addresses.iter();
    let near = near
        .filter(|own| on_device(own.link) && own.net.contains(&gateway))
        .max_by_key(|own| own.net.prefix_len());
    if let Some(near) = near {
        let device = facts.device_name(near.link);
        return if facts.link(near.link).is_some_and(|link| link.up) {
            Fault::NoConnectedRoute {
                key,
                gateway,
                network: near.net.trunc(),
                device,
            }
        } else {
            Fault::LinkDown {
                key,
                gateway,
                device,
            }
        };
    }
    let disabled = presence::links_without_ipv6(facts);
    if family == Family::Ipv6 && !disabled.is_empty() {
        return Fault::Ipv6Disabled {
            key,
            gateway,
            devices: disabled.join(", "),
        };
    }
    if !presence::in_use(facts, family) {
        return Fault::NoAddressYet { key, gateway };
    }
    Fault::NotOnLink {
        key,
        gateway,
        device: device
            .map(|device| format!(" on {}", facts.device_name(device)))
            .unwrap_or_default(),
    }
}

/// The link of an onlink gateway without an interface in the settings: the link of the main default;
/// without a default for the moment, the link of our bypass routes; else the only link with an
/// address of the family.
fn onlink_device(inputs: &Inputs, gateway: IpAddr) -> Option<IfIndex> {
    let (facts, family) = (inputs.facts, Family::of(gateway));
    if let Some(device) = facts.defaults(family).iter().find_map(|hop| hop.device) {
        return Some(device);
    }
    let last = inputs.last_bypass.get(family).as_ref();
    if let Some(device) = last.map(|path| path.first().device) {
        return Some(device);
    }
    let mut links: Vec<IfIndex> = facts
        .addresses
        .iter()
        .filter(|own| Family::of_net(&own.net) == family && !is_link_local(own.net.addr()))
        .map(|own| own.link)
        .filter(|link| facts.link(*link).is_some_and(|link| !link.loopback))
        .collect();
    links.sort();
    links.dedup();
    match links.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The next hop through an egress gateway.
///
/// # Errors
/// The gateway is unusable now.
pub fn egress(inputs: &Inputs, gateway: IpAddr) -> Result<Via, Fault> {
    let facts = inputs.facts;
    let named = Named {
        key: "[egress] gateways",
        gateway,
        device: None,
        onlink: inputs.config.egress.onlink,
    };
    let via = explicit(inputs, &named)?;
    // Only the state of the link shows that an onlink gateway is out of reach.
    if via.onlink && !facts.reaches(&via) {
        return Err(Fault::LinkDown {
            key: named.key,
            gateway,
            device: facts.device_name(via.device),
        });
    }
    Ok(via)
}

/// The link of an egress gateway, usable now or not; `None` for an address outside all networks of
/// this host.
pub fn egress_device(inputs: &Inputs, gateway: IpAddr) -> Option<String> {
    match egress(inputs, gateway) {
        Ok(via) => Some(inputs.facts.device_name(via.device)),
        Err(Fault::LinkDown { device, .. } | Fault::NoConnectedRoute { device, .. }) => {
            Some(device)
        }
        Err(_) => None,
    }
}
