//! One reading of the VPC: our lists with their entries, the tables, and the other lists of them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::objects::{Account, Entry, ListId, PrefixList, RouteDestination, RouteTable};
use super::tags;
use crate::types::{Family, PerFamily, SyncToken};

/// A list with its entries, of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedList {
    pub list: PrefixList,
    pub entries: Vec<Entry>,
}

impl ObservedList {
    /// The prefixes of the entries.
    pub fn cidrs(&self) -> BTreeSet<IpNet> {
        self.entries.iter().map(|entry| entry.cidr).collect()
    }

    /// The newest document in force or about to be.
    pub fn token(&self) -> Option<SyncToken> {
        tags::token_of(&self.list.tags, &self.entries)
    }
}

/// The list of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Absent,
    Ours(Box<ObservedList>),
    /// A list in the place of ours, with the reason and the remedy.
    Conflict(String),
}

impl Found {
    /// Our list.
    pub fn ours(&self) -> Option<&ObservedList> {
        match self {
            Found::Ours(list) => Some(list),
            Found::Absent | Found::Conflict(_) => None,
        }
    }
}

/// One reading of the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPlane {
    pub lists: PerFamily<Found>,
    /// More lists of ours: writers that start at the same time create one each.
    pub spares: PerFamily<Vec<PrefixList>>,
    /// The tables of the settings.
    pub tables: Vec<RouteTable>,
    /// The other lists that the tables lead to a target.
    pub others: BTreeMap<ListId, ObservedList>,
}

impl ObservedPlane {
    /// The networks of the VPCs: the destinations of the local routes.
    pub fn vpc_cidrs(&self) -> Vec<IpNet> {
        let routes = self.tables.iter().flat_map(|table| &table.routes);
        let local = routes.filter(|route| route.is_local());
        let cidrs: BTreeSet<IpNet> = local
            .filter_map(|route| match route.destination {
                RouteDestination::Prefix(prefix) => Some(prefix),
                RouteDestination::List(_) => None,
            })
            .collect();
        cidrs.into_iter().collect()
    }

    /// The newest document in force or about to be, by our list and by the spare ones.
    pub fn newest(&self, family: Family) -> Option<SyncToken> {
        let spares = self.spares.get(family).iter();
        let spares = spares.filter_map(|spare| tags::token_of(&spare.tags, &[]));
        let ours = self.lists.get(family).ours();
        spares.chain(ours.and_then(ObservedList::token)).max()
    }

    /// The entries of our lists.
    pub fn prefixes(&self) -> PerFamily<Vec<IpNet>> {
        PerFamily::from_fn(|family| match self.lists.get(family).ours() {
            Some(list) => list.cidrs().into_iter().collect(),
            None => Vec::new(),
        })
    }
}

/// The account of the tables; only the owner of a VPC can change its tables.
pub fn account(tables: &[RouteTable]) -> Option<&Account> {
    tables.first().map(|table| &table.owner)
}

/// The lists that the routes of the tables name.
pub fn lists_of(tables: &[RouteTable]) -> BTreeSet<ListId> {
    let routes = tables.iter().flat_map(|table| &table.routes);
    let lists = routes.filter_map(|route| match &route.destination {
        RouteDestination::List(list) => Some(list.clone()),
        RouteDestination::Prefix(_) => None,
    });
    lists.collect()
}

/// Chooses our list of a family among the described ones: with the configured id, else with our
/// name. Of several with our tag, the one in use by the tables counts, then the one with the smallest
/// id; so several writers that created lists at the same time agree.
pub fn choose<'l>(
    lists: &'l [PrefixList],
    family: Family,
    name: &str,
    configured: &[String],
    tables: &[RouteTable],
) -> Result<Option<&'l PrefixList>, String> {
    let of_family = |list: &&PrefixList| list.family == Some(family);
    let by_id = lists
        .iter()
        .filter(of_family)
        .find(|list| configured.contains(&list.id.0));
    if let Some(list) = by_id {
        return claim(list, name, tables).map(|()| Some(list));
    }
    let list_name = list_name(name, family);
    let mut candidates: Vec<&PrefixList> = lists
        .iter()
        .filter(of_family)
        .filter(|list| list.name == list_name)
        .collect();
    let used = lists_of(tables);
    candidates.sort_by_key(|list| (!used.contains(&list.id), &list.id));
    let mut refusal = None;
    for list in candidates {
        match claim(list, name, tables) {
            Ok(()) => return Ok(Some(list)),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// The lists of ours beside the chosen one. None if the settings name the list.
pub fn spares<'l>(
    lists: &'l [PrefixList],
    chosen: &'l PrefixList,
    name: &str,
    configured: &[String],
    tables: &[RouteTable],
) -> impl Iterator<Item = &'l PrefixList> {
    let is_named = configured.contains(&chosen.id.0);
    let of_family = |list: &&PrefixList| list.family == chosen.family && list.name == chosen.name;
    let others = lists
        .iter()
        .filter(of_family)
        .filter(|list| list.id != chosen.id);
    others.filter(move |list| !is_named && claim(list, name, tables).is_ok())
}

/// The name of a family's list.
pub fn list_name(name: &str, family: Family) -> String {
    format!("{name}-{family}")
}

/// Refuses a list that is not ours to change, with the reason and the remedy.
fn claim(list: &PrefixList, name: &str, tables: &[RouteTable]) -> Result<(), String> {
    let id = &list.id;
    if let Some(account) = account(tables).filter(|account| **account != list.owner) {
        return Err(format!(
            "prefix list {id} ({}) belongs to account {}, and the route tables to {account}: set \
             [vpc_plane] name or lists to a list of {account}",
            list.name, list.owner
        ));
    }
    if list.from_ipam {
        return Err(format!(
            "prefix list {id} ({}) is written by an IPAM prefix list resolver: set [vpc_plane] name \
             or lists to another list",
            list.name
        ));
    }
    match list.tags.get(tags::OWNER) {
        Some(owner) if owner == name => Ok(()),
        Some(owner) => Err(format!(
            "prefix list {id} ({}) belongs to the Trailblazer of name {owner:?} (tag {}): set \
             [vpc_plane] name = {owner:?}, or name another list",
            list.name,
            tags::OWNER
        )),
        None => Err(format!(
            "prefix list {id} ({}) has no tag {}: set [vpc_plane] name to another name; to hand this \
             list over with all of its entries, give it the tag {}={name}",
            list.name,
            tags::OWNER,
            tags::OWNER
        )),
    }
}
