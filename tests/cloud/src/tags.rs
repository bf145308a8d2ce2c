//! The actions on tags.

use crate::actions::{no_list, no_table};
use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::select;
use crate::state::{Kind, State};

/// The most tags of a resource ("Tag restrictions").
const TAGS: usize = 50;

/// EC2's word for the type of a resource that exists.
pub(crate) fn resource_type(state: &State, id: &str) -> Result<&'static str, ApiError> {
    if state.tables.contains_key(id) {
        return Ok("route-table");
    }
    if state.lists.contains_key(id) {
        return Ok("prefix-list");
    }
    if state.vpcs.contains_key(id) {
        return Ok("vpc");
    }
    if let Some(target) = state.targets.get(id) {
        return Ok(match target.kind {
            Kind::InternetGateway => "internet-gateway",
            Kind::VirtualGateway => "vpn-gateway",
            Kind::EgressOnlyGateway => "egress-only-internet-gateway",
            Kind::NatGateway => "natgateway",
            Kind::Interface => "network-interface",
            Kind::Instance => "instance",
            Kind::TransitGateway => "transit-gateway",
            Kind::Peering => "vpc-peering-connection",
            Kind::Endpoint => "vpc-endpoint",
            Kind::LocalGateway => "local-gateway",
            Kind::CarrierGateway => "carrier-gateway",
            Kind::CoreNetwork | Kind::OdbNetwork => "network",
        });
    }
    Err(match id.split_once('-') {
        Some(("pl", _)) => no_list(id),
        Some(("rtb", _)) => no_table(id),
        _ => ApiError::new("InvalidID", format!("The ID '{id}' is not valid")),
    })
}

/// Sets tags of a resource.
pub(crate) fn set(
    state: &mut State,
    id: &str,
    tags: Vec<(String, Option<String>)>,
) -> Result<(), ApiError> {
    let own = state.tags.entry(id.to_owned()).or_default();
    for (key, value) in tags {
        let value = value.unwrap_or_default();
        let long = key.chars().count() > 128 || value.chars().count() > 256;
        if key.is_empty() || long || key.starts_with("aws:") {
            let text = format!("Tag key '{key}' or its value is invalid, or reserved.");
            return Err(ApiError::misuse("InvalidParameterValue", text));
        }
        own.insert(key, value);
    }
    if own.len() > TAGS {
        let text = format!("The resource {id} would have more than {TAGS} tags.");
        return Err(ApiError::new("TagLimitExceeded", text));
    }
    Ok(())
}

/// The resources of a request, each of which must exist and be the caller's.
fn resources<'a>(
    state: &State,
    settings: &Settings,
    request: &'a Request,
) -> Result<Vec<&'a str>, ApiError> {
    let ids = request.values("ResourceId");
    for id in &ids {
        resource_type(state, id)?;
        let owner = state.lists.get(*id).map(|list| &list.owner);
        if owner.is_some_and(|owner| *owner != settings.account) {
            let text = format!("You are not authorized to perform this operation on {id}.");
            return Err(ApiError::new("UnauthorizedOperation", text));
        }
    }
    Ok(ids)
}

/// `CreateTags`
pub(crate) fn create(
    state: &mut State,
    settings: &Settings,
    _due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    for id in resources(state, settings, request)? {
        set(state, id, request.tags("Tag"))?;
    }
    Ok(done())
}

/// `DeleteTags`: a key without a value deletes the tag whatever its value; no key deletes all.
pub(crate) fn delete(
    state: &mut State,
    settings: &Settings,
    _due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let tags = request.tags("Tag");
    for id in resources(state, settings, request)? {
        let own = state.tags.entry(id.to_owned()).or_default();
        own.retain(|key, value| {
            let mut named = tags.iter();
            let hit = named.any(|(k, v)| k == key && v.as_ref().is_none_or(|v| v == value));
            !hit && !tags.is_empty()
        });
    }
    Ok(done())
}

fn done() -> Xml {
    let mut xml = Xml::default();
    xml.text("return", "true");
    xml
}

/// `DescribeTags`
pub(crate) fn describe(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let filters = request.filters();
    let known = ["key", "resource-id", "resource-type", "value"];
    select::check(&filters, &known, true)?;
    let mut found = Vec::new();
    for (id, tags) in &state.tags {
        let kind = resource_type(state, id).unwrap_or("unknown");
        for (key, value) in tags {
            let one = [(key.clone(), value.clone())].into();
            let hit = select::matches(&filters, &one, |name| {
                vec![match name {
                    "key" => key.clone(),
                    "resource-id" => id.clone(),
                    "resource-type" => kind.to_owned(),
                    _ => value.clone(),
                }]
            });
            if hit {
                found.push((id, kind, key, value));
            }
        }
    }
    let (found, next) = select::page(request, settings, found)?;
    let mut xml = Xml::default();
    xml.set("tagSet", found, |item, (id, kind, key, value)| {
        item.text("resourceId", id);
        item.text("resourceType", kind);
        item.text("key", key);
        item.text("value", value);
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}
