//! Which router, on which link.

use std::net::IpAddr;

use super::{DesiredError, Inputs};
use crate::config::AutoOr;
use crate::facts::{HostFacts, Link};
use crate::objects::Via;
use crate::types::{Family, IfIndex};

/// The bypass path of a family; `None` (with a note) where it has none.
pub fn bypass(
    inputs: &Inputs,
    family: Family,
    notes: &mut Vec<String>,
) -> Result<Option<Via>, DesiredError> {
    const KEY: &str = "[bypass] gateway";
    let device = match &inputs.config.bypass.interface {
        AutoOr::Auto => None,
        AutoOr::Set(name) => Some(interface(inputs.facts, "[bypass] interface", name)?),
    };
    if let AutoOr::Set(gateway) = inputs.config.bypass.gateway.get(family) {
        return explicit(inputs.facts, KEY, *gateway, device).map(Some);
    }
    let best = inputs
        .facts
        .defaults(family)
        .into_iter()
        .find(|route| route.device.is_some() && (device.is_none() || route.device == device));
    if let Some(best) = best {
        if let Some(gateway) = best.gateway
            && inputs.config.egress.gateways.contains(&gateway)
        {
            return Err(DesiredError::BypassIsEgress { gateway });
        }
        return Ok(best.device.map(|device| Via {
            gateway: best.gateway,
            device,
            onlink: best.onlink,
        }));
    }
    // It stays for the sake of routes: with none left it would be known in this pass and forgotten
    // in the next.
    let has_routes = inputs
        .prefixes
        .is_none_or(|prefixes| !prefixes.get(family).is_empty());
    if let Some(last) = inputs.last_bypass.get(family)
        && inputs.facts.reaches(last)
        && has_routes
    {
        notes.push(format!(
            "{family}: no default route in the main table at the moment; the last known bypass gateway {} stays",
            describe(inputs.facts, last)
        ));
        return Ok(Some(*last));
    }
    notes.push(format!(
        "{family}: skipped: no default route in the main table and no [bypass] gateway; storage over {family} takes the path it has"
    ));
    Ok(None)
}

fn describe(facts: &HostFacts, via: &Via) -> String {
    match via.gateway {
        Some(gateway) => format!("{gateway} on {}", facts.device_name(via.device)),
        None => facts.device_name(via.device),
    }
}

/// An interface that the settings name.
pub fn interface(
    facts: &HostFacts,
    key: &'static str,
    name: &str,
) -> Result<IfIndex, DesiredError> {
    facts
        .link_named(name)
        .map(|link| link.index)
        .ok_or_else(|| DesiredError::NoInterface {
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

/// A gateway that the settings name: on-link by the connected routes.
fn explicit(
    facts: &HostFacts,
    key: &'static str,
    gateway: IpAddr,
    device: Option<IfIndex>,
) -> Result<Via, DesiredError> {
    // The kernel takes such a route in a table of its own and sends the packets nowhere.
    if facts.is_own(gateway) {
        return Err(DesiredError::OwnGateway { key, gateway });
    }
    if let IpAddr::V6(v6) = gateway
        && v6.is_unicast_link_local()
    {
        let device = device.ok_or(DesiredError::LinkLocalNeedsInterface { key, gateway })?;
        return Ok(Via {
            gateway: Some(gateway),
            device,
            onlink: false,
        });
    }
    match facts.on_link(gateway, device) {
        Some(device) => Ok(Via {
            gateway: Some(gateway),
            device,
            onlink: false,
        }),
        None => Err(DesiredError::NotOnLink {
            key,
            gateway,
            device: device
                .map(|device| format!(" on {}", facts.device_name(device)))
                .unwrap_or_default(),
        }),
    }
}

/// An egress gateway now: usable, or out of reach because its link is down. An address that no
/// network of ours holds, up or down, is a mistake in the settings and an error.
pub fn egress(facts: &HostFacts, gateway: IpAddr) -> Result<Result<Via, String>, DesiredError> {
    const KEY: &str = "[egress] gateways";
    let refused = match explicit(facts, KEY, gateway, None) {
        Ok(via) => return Ok(Ok(via)),
        Err(refused @ DesiredError::NotOnLink { .. }) => refused,
        Err(refused) => return Err(refused),
    };
    let down = facts
        .addresses
        .iter()
        .find(|own| own.net.contains(&gateway) && own.net.addr() != gateway);
    match down {
        Some(own) => Ok(Err(facts.device_name(own.link))),
        None => Err(refused),
    }
}
