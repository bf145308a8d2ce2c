//! The actions that read prefix lists.

use crate::actions::no_list;
use crate::answer::{ApiError, Xml};
use crate::knobs::Settings;
use crate::request::Request;
use crate::select;
use crate::state::{List, State};

/// `DescribeManagedPrefixLists`
pub(crate) fn describe(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let ids = request.values("PrefixListId");
    for id in &ids {
        state.lists.get(*id).ok_or_else(|| no_list(id))?;
    }
    let filters = request.filters();
    let known = ["owner-id", "prefix-list-id", "prefix-list-name"];
    select::check(&filters, &known, settings.unlisted_filters)?;
    let lists = state.lists.iter().filter(|(id, list)| {
        let by_id = ids.is_empty() || ids.contains(&id.as_str());
        by_id
            && select::matches(&filters, &state.tags_of(id), |name| match name {
                "owner-id" => vec![list.owner.clone()],
                "prefix-list-id" => vec![(*id).clone()],
                _ => vec![list.name.clone()],
            })
    });
    let (lists, next) = select::page(request, settings, lists.collect())?;
    let mut xml = Xml::default();
    xml.set("prefixListSet", lists, |item, (id, list)| {
        show(item, state, settings, id, list);
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}

/// One list, as the changing actions answer: with the version before the change.
pub(crate) fn one(state: &State, settings: &Settings, id: &str) -> Result<Xml, ApiError> {
    let list = state.lists.get(id).ok_or_else(|| no_list(id))?;
    let mut xml = Xml::default();
    xml.node("prefixList", |item| show(item, state, settings, id, list));
    Ok(xml)
}

fn show(item: &mut Xml, state: &State, settings: &Settings, id: &str, list: &List) {
    item.text("prefixListId", id);
    item.text("addressFamily", list.family.word());
    item.text("state", &list.state);
    item.some("stateMessage", list.message.as_deref());
    let owner = if list.is_of_aws() { "aws" } else { &list.owner };
    let arn = format!(
        "arn:{}:ec2:{}:{owner}:prefix-list/{id}",
        settings.partition, settings.region
    );
    item.text("prefixListArn", &arn);
    item.text("prefixListName", &list.name);
    // "You cannot view the version number of an AWS-managed prefix list."
    if !list.is_of_aws() {
        item.value("maxEntries", list.max_entries);
        item.value("version", list.version());
    }
    item.tags(&state.tags_of(id));
    item.text("ownerId", &list.owner);
    if let Some(resolver) = &list.resolver {
        item.text("ipamPrefixListResolverTargetId", resolver);
        item.text("ipamPrefixListResolverSyncEnabled", "true");
    }
}

/// `GetManagedPrefixListEntries`
pub(crate) fn entries(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("PrefixListId");
    let list = state.lists.get(id).ok_or_else(|| no_list(id))?;
    let entries = match request.number("TargetVersion") {
        None => list.entries(),
        Some(version) => list.at(version).ok_or_else(|| {
            let text = format!("The specified value for version is not valid: {version}.");
            ApiError::new("InvalidParameterValue", text)
        })?,
    };
    let (entries, next) = select::page(request, settings, entries.iter().collect())?;
    let mut xml = Xml::default();
    xml.set("entrySet", entries, |item, entry| {
        item.value("cidr", entry.cidr);
        item.some("description", entry.description.as_deref());
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}

/// `GetManagedPrefixListAssociations`
pub(crate) fn associations(
    state: &State,
    settings: &Settings,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("PrefixListId");
    state.lists.get(id).ok_or_else(|| no_list(id))?;
    let (tables, next) = select::page(request, settings, state.references(id))?;
    let mut xml = Xml::default();
    xml.set("prefixListAssociationSet", tables, |item, table| {
        item.text("resourceId", &table);
        item.text("resourceOwner", &settings.account);
    });
    xml.some("nextToken", next.as_deref());
    Ok(xml)
}
