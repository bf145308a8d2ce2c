//! Resolves the gateways: router and link.

use std::net::IpAddr;

use super::{DesiredError, Inputs};
use crate::config::AutoOr;
use crate::facts::{HostFacts, Link};
use crate::objects::Via;
use crate::types::{Family, IfIndex};

/// The next hop of a family's bypass path; `None`, with a note, without any.
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
    // The last gateway is read from our routes: without routes, this pass would know the gateway
    // and the next pass would not.
    let has_routes = inputs
        .prefixes
        .is_none_or(|prefixes| !prefixes.get(family).is_empty());
    if let Some(last) = inputs.last_bypass.get(family)
        && inputs.facts.reaches(last)
        && has_routes
    {
        notes.push(format!(
            "{family}: the main table has no default route at the moment; the last known bypass gateway {} stays in use",
            describe(inputs.facts, last)
        ));
        return Ok(Some(*last));
    }
    notes.push(format!(
        "{family}: skipped: no default route in the main table and no [bypass] gateway; storage traffic over {family} is not steered"
    ));
    Ok(None)
}

fn describe(facts: &HostFacts, via: &Via) -> String {
    match via.gateway {
        Some(gateway) => format!("{gateway} on {}", facts.device_name(via.device)),
        None => facts.device_name(via.device),
    }
}

/// The interface named in the settings.
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

/// A gateway from the settings, on the link of the connected network that contains the gateway.
fn explicit(
    facts: &HostFacts,
    key: &'static str,
    gateway: IpAddr,
    device: Option<IfIndex>,
) -> Result<Via, DesiredError> {
    // The kernel accepts such a route outside the main table, and the packets are lost.
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

/// The state of an egress gateway: usable, or out of reach behind the named link, which is down. An
/// address outside all networks of this host, up or down, is an error in the settings.
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
