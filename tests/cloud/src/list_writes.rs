//! The actions that change prefix lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::actions::no_list;
use crate::answer::{ApiError, Xml};
use crate::entries::{TEXT, added, fits, max_entries, name, prefixes};
use crate::knobs::Settings;
use crate::list_reads;
use crate::request::Request;
use crate::state::{Change, Destination, Effect, Entry, Family, List, State};
use crate::tags;

/// The most entries of a request, added and removed together.
const PER_REQUEST: usize = 100;

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::misuse("InvalidParameterValue", text)
}

/// `CreateManagedPrefixList`
pub(crate) fn create(
    state: &mut State,
    settings: &Settings,
    due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let token = request.text("ClientToken");
    if let Some((parameters, id)) = state.tokens.get(token).filter(|_| !token.is_empty()) {
        if *parameters != request.parameters {
            let text = "The client token was used with other parameters.";
            return Err(ApiError::misuse("IdempotentParameterMismatch", text));
        }
        return list_reads::one(state, settings, id);
    }
    let family = match request.text("AddressFamily") {
        "IPv4" => Family::Ipv4,
        "IPv6" => Family::Ipv6,
        other => return Err(invalid(format!("Invalid address family '{other}'."))),
    };
    let name = name(request.text("PrefixListName"))?;
    let max = max_entries(request.number("MaxEntries").unwrap_or_default())?;
    let entries = added(request, "Entry", family)?;
    if entries.len() > PER_REQUEST {
        return Err(invalid(
            "The number of entries per request cannot exceeds limit (100).",
        ));
    }
    if token.chars().count() > TEXT {
        return Err(invalid("The client token is too long."));
    }
    fits(entries.len(), max)?;
    let own = state.lists.values();
    let own = own.filter(|list| list.owner == settings.account).count();
    if own >= settings.lists {
        let text = "You've reached the limit on the number of prefix lists in the region.";
        return Err(ApiError::new("PrefixListLimitExceeded", text));
    }
    let new_tags = specified_tags(request)?;
    let id = state.new_id("pl");
    let list = List {
        name: name.to_owned(),
        family,
        owner: settings.account.clone(),
        max_entries: max,
        versions: vec![Arc::new(entries)],
        first: 1,
        state: "create-in-progress".to_owned(),
        message: None,
        change: Some(Change {
            due,
            verb: "create",
            effect: Effect::None,
        }),
        resolver: None,
    };
    state.lists.insert(id.clone(), list);
    tags::set(state, &id, new_tags)?;
    if !token.is_empty() {
        let made = (request.parameters.clone(), id.clone());
        state.tokens.insert(token.to_owned(), made);
    }
    list_reads::one(state, settings, &id)
}

/// The tags of a request's specifications, which must be for prefix lists.
fn specified_tags(request: &Request) -> Result<Vec<(String, Option<String>)>, ApiError> {
    let mut all = Vec::new();
    for (index, specification) in request.items("TagSpecification").iter().enumerate() {
        if specification.get("ResourceType") != Some(&"prefix-list") {
            return Err(invalid("The tag specification is not for a prefix-list."));
        }
        all.extend(request.tags(&format!("TagSpecification.{}.Tag", index + 1)));
    }
    Ok(all)
}

/// `ModifyManagedPrefixList`
pub(crate) fn modify(
    state: &mut State,
    settings: &Settings,
    due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("PrefixListId");
    let list = writable(state, settings, id)?.clone();
    let adds = added(request, "AddEntry", list.family)?;
    let removes = prefixes(request, "RemoveEntry", list.family)?;
    let max = request.number("MaxEntries");
    let changes = adds.len() + removes.len();
    if changes > 0 && max.is_some() {
        return Err(ApiError::misuse(
            "InvalidParameterCombination",
            "You cannot modify the entries and the maximum entries for the prefix list in the \
             same request.",
        ));
    }
    let sync = request.get("IpamPrefixListResolverSyncEnabled");
    if sync.is_some() && list.resolver.is_none() {
        return Err(invalid("The prefix list has no IPAM prefix list resolver."));
    }
    if changes == 0 && max.is_none() && sync.is_none() && request.get("PrefixListName").is_none() {
        let text = "The request received was invalid.";
        return Err(ApiError::misuse("InvalidRequest", text));
    }
    if changes > PER_REQUEST {
        return Err(invalid(
            "Request cannot contain more than 100 entry additions or removals.",
        ));
    }
    settled(id, &list)?;
    current_version(request, &list, changes > 0)?;
    let effect = if let Some(max) = max {
        let max = max_entries(max)?;
        fits(list.entries().len(), max)?;
        resize(state, settings, id, &list, max)
    } else if changes > 0 {
        if list.resolver.is_some() {
            return Err(of_resolver());
        }
        let next = changed(&list, settings, adds, &removes)?;
        fits(next.len(), list.max_entries)?;
        Effect::Entries(Arc::new(next))
    } else {
        Effect::None
    };
    let new_name = match request.get("PrefixListName") {
        Some(text) => name(text)?.to_owned(),
        None => list.name,
    };
    if let Some(list) = state.lists.get_mut(id) {
        list.name = new_name;
    }
    begin(state, id, due, "modify", effect);
    list_reads::one(state, settings, id)
}

/// `RestoreManagedPrefixListVersion`
pub(crate) fn restore(
    state: &mut State,
    settings: &Settings,
    due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("PrefixListId");
    let list = writable(state, settings, id)?;
    if list.resolver.is_some() {
        return Err(of_resolver());
    }
    settled(id, list)?;
    current_version(request, list, true)?;
    let previous = request.number("PreviousVersion").unwrap_or_default();
    let entries = list.at(previous).filter(|_| previous < list.version());
    let entries = entries.ok_or_else(|| {
        let text = format!("The specified value for version is not valid: {previous}.");
        invalid(text)
    })?;
    fits(entries.len(), list.max_entries)?;
    begin(state, id, due, "restore", Effect::Entries(entries));
    list_reads::one(state, settings, id)
}

/// `DeleteManagedPrefixList`. The call is taken while routes refer to the list; the deletion
/// fails then, and the list stays.
pub(crate) fn delete(
    state: &mut State,
    settings: &Settings,
    due: usize,
    request: &Request,
) -> Result<Xml, ApiError> {
    let id = request.text("PrefixListId");
    settled(id, writable(state, settings, id)?)?;
    let references = state.references(id);
    let effect = if references.is_empty() {
        Effect::Deleted
    } else {
        Effect::Failed(format!(
            "The following resources still refer to the prefix list: {}",
            first_ten(&references)
        ))
    };
    begin(state, id, due, "delete", effect);
    list_reads::one(state, settings, id)
}

/// Starts a change.
fn begin(state: &mut State, id: &str, due: usize, verb: &'static str, effect: Effect) {
    if let Some(list) = state.lists.get_mut(id) {
        list.state = format!("{verb}-in-progress");
        list.message = None;
        list.change = Some(Change { due, verb, effect });
    }
}

/// The effect of a new `MaxEntries`: each resource that refers to the list must have the places.
fn resize(state: &State, settings: &Settings, id: &str, list: &List, max: u32) -> Effect {
    let more = (max as usize).saturating_sub(list.max_entries as usize);
    let tables = state.tables.iter().filter(|(_, table)| {
        let to_list =
            |route: &&crate::state::Route| route.destination == Destination::List(id.to_owned());
        let routes = table.routes.iter().filter(to_list).count();
        routes > 0 && state.load(table, list.family) + more * routes > settings.routes_per_table
    });
    let others = state.referrers.get(id).into_iter().flatten();
    let others = others.filter(|(_, most)| **most < max);
    let full = tables.map(|(id, _)| id).chain(others.map(|(id, _)| id));
    let full: Vec<String> = full.cloned().collect();
    if full.is_empty() {
        return Effect::Resize(max);
    }
    Effect::Failed(format!(
        "The following resources do not support the new maximum size {max}: {}",
        first_ten(&full)
    ))
}

fn first_ten(ids: &[String]) -> String {
    ids.iter().take(10).cloned().collect::<Vec<_>>().join(", ")
}

/// A list that the caller may change.
fn writable<'a>(state: &'a State, settings: &Settings, id: &str) -> Result<&'a List, ApiError> {
    let list = state.lists.get(id).ok_or_else(|| no_list(id))?;
    if list.is_of_aws() {
        let text = format!("The prefix list {id} is managed by AWS.");
        return Err(ApiError::new("UnsupportedOperation", text));
    }
    if list.owner != settings.account {
        let text = format!(
            "You are not authorized to perform this operation: the prefix list {id} belongs to \
             the account {}.",
            list.owner
        );
        return Err(ApiError::new("UnauthorizedOperation", text));
    }
    Ok(list)
}

fn of_resolver() -> ApiError {
    let text = "An IPAM prefix list resolver writes the entries of the prefix list.";
    ApiError::new("UnsupportedOperation", text)
}

/// A list takes no change while another is in progress.
fn settled(id: &str, list: &List) -> Result<(), ApiError> {
    if list.change.is_some() {
        let text = format!(
            "The request cannot be completed while the prefix list ({id}) is in the current state \
             ({}).",
            list.state
        );
        return Err(ApiError::new("IncorrectState", text));
    }
    Ok(())
}

/// Compares `CurrentVersion`.
fn current_version(request: &Request, list: &List, needed: bool) -> Result<(), ApiError> {
    match request.number("CurrentVersion") {
        Some(version) if version != list.version() => {
            let text = "The prefix list has the incorrect version number.";
            Err(ApiError::new("PrefixListVersionMismatch", text))
        }
        None if needed => {
            let text = "The request must contain the parameter CurrentVersion";
            Err(ApiError::misuse("MissingParameter", text))
        }
        _ => Ok(()),
    }
}

/// The entries after additions and removals.
fn changed(
    list: &List,
    settings: &Settings,
    adds: Vec<Entry>,
    removes: &BTreeSet<IpNet>,
) -> Result<Vec<Entry>, ApiError> {
    let refused = |text| Err(ApiError::new("InvalidPrefixListModification", text));
    let entries = list.entries();
    let mut next: BTreeMap<IpNet, Entry> = entries.iter().map(|e| (e.cidr, e.clone())).collect();
    for cidr in removes {
        if adds.iter().any(|entry| entry.cidr == *cidr) {
            return Err(invalid(format!(
                "Request cannot contain Cidr {cidr} in both AddPrefixListEntries and \
                 RemovePrefixListEntries"
            )));
        }
        if next.remove(cidr).is_none() {
            return refused(format!("An entry with the CIDR ({cidr}) does not exist."));
        }
    }
    for entry in adds {
        let same = next.get(&entry.cidr);
        if same.is_some_and(|same| !settings.redescribe || same.description == entry.description) {
            return refused(format!(
                "An entry with the CIDR ({}) and description ({}) already exists.",
                entry.cidr,
                same.and_then(|same| same.description.as_deref())
                    .unwrap_or_default()
            ));
        }
        next.insert(entry.cidr, entry);
    }
    Ok(next.into_values().collect())
}
