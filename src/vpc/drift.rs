//! Changes of our objects by other programs, found by comparison with the objects as left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::goal::{FamilyGoal, PlaneGoal};
use super::objects::{
    Entry, ListId, ListVersion, RouteDestination, RouteTable, RouteTableId, RouteTarget,
};
use super::observed::{Found, ObservedList, ObservedPlane};
use crate::types::{Family, Region, SyncToken};
use crate::words::first_few;

/// The most entries that a message names.
const NAMED: usize = 5;

/// A list and its routes as a pass of this writer left them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The region of the list; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    pub list: ListId,
    /// Empty in files of older versions.
    #[serde(default)]
    pub name: String,
    pub version: ListVersion,
    pub token: Option<SyncToken>,
    /// The document that this writer has begun to bring about since: the mark and changes towards the
    /// document may be its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<SyncToken>,
    pub entries: BTreeSet<IpNet>,
    /// The target of the list in each table that led the list to the wanted target.
    #[serde(default)]
    pub routes: BTreeMap<RouteTableId, String>,
}

impl Left {
    /// The list as it is now, and its routes to the target.
    pub fn of(
        list: &ObservedList,
        tables: &[RouteTable],
        target: Option<&RouteTarget>,
    ) -> Option<Left> {
        let destination = RouteDestination::List(list.list.id.clone());
        let led = tables.iter().filter_map(|table| {
            let (target, route) = (target?, table.route_to(&destination)?);
            let is_led = route.leads_to(target);
            is_led.then(|| (table.id.clone(), target.id.clone()))
        });
        Some(Left {
            region: None,
            list: list.list.id.clone(),
            name: list.list.name.clone(),
            version: list.list.version?,
            token: list.token(),
            begun: None,
            entries: list.cidrs(),
            routes: led.collect(),
        })
    }
}

/// A change by another program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Drift {
    Entries {
        family: Family,
        list: ListId,
        version_before: ListVersion,
        version: ListVersion,
        added: Vec<IpNet>,
        removed: Vec<IpNet>,
    },
    /// The list is gone.
    PrefixList { family: Family, list: ListId },
    Route {
        family: Family,
        table: RouteTableId,
        /// The prefix, or the list.
        destination: String,
        target_before: String,
        /// `None` for a deleted route.
        target: Option<String>,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Entries {
                family,
                list,
                version_before,
                version,
                added,
                removed,
            } => {
                let added = added.iter().map(|it| format!("+{it}"));
                let removed = removed.iter().map(|it| format!("-{it}"));
                let changes = first_few(added.chain(removed), NAMED, ", ");
                write!(
                    f,
                    "{family}: another program has changed prefix list {list} from version \
                     {version_before} to {version}: {changes}"
                )
            }
            Drift::PrefixList { family, list } => {
                write!(
                    f,
                    "{family}: another program has deleted prefix list {list}"
                )
            }
            Drift::Route {
                family,
                table,
                destination,
                target_before,
                target: None,
            } => write!(
                f,
                "{family}: another program has deleted the route of {table} for {destination} to \
                 {target_before}"
            ),
            Drift::Route {
                family,
                table,
                destination,
                target_before,
                target: Some(target),
            } => write!(
                f,
                "{family}: another program has led {destination} in {table} to {target} in place of \
                 {target_before}"
            ),
        }
    }
}

/// The list as left, before the first step towards the document of this token: as found, unless
/// another program has changed the entries.
pub fn begun(
    family: Family,
    earlier: Option<&Left>,
    found: (&ObservedList, &[RouteTable]),
    wanted: &FamilyGoal,
    token: SyncToken,
) -> Option<Left> {
    let (now, tables) = found;
    let is_edited = of(family, earlier, now, &wanted.entries).is_some();
    let base = match earlier.filter(|_| is_edited) {
        Some(earlier) => earlier.clone(),
        None => Left::of(now, tables, Some(&wanted.target))?,
    };
    Some(Left {
        begun: Some(token),
        ..base
    })
}

/// The change of the entries since an earlier pass, if no writer with a newer document explains it.
/// Changes towards the wanted entries are explained by a document that this writer has begun.
pub fn of(
    family: Family,
    left: Option<&Left>,
    now: &ObservedList,
    wanted: &[Entry],
) -> Option<Drift> {
    let left = left.filter(|left| left.list == now.list.id)?;
    let version = now.list.version?;
    let cidrs = now.cidrs();
    let is_begun = left.begun.is_some() && now.token() == left.begun;
    if version <= left.version || now.token() > left.token && !is_begun {
        return None;
    }
    let wanted: BTreeSet<IpNet> = match is_begun {
        true => wanted.iter().map(|entry| entry.cidr).collect(),
        false => BTreeSet::new(),
    };
    let added = cidrs.difference(&left.entries);
    let added: Vec<IpNet> = added.filter(|it| !wanted.contains(it)).copied().collect();
    let removed = left.entries.difference(&cidrs);
    let removed = removed.filter(|it| !is_begun || wanted.contains(it));
    let removed: Vec<IpNet> = removed.copied().collect();
    if added.is_empty() && removed.is_empty() {
        return None;
    }
    Some(Drift::Entries {
        family,
        list: now.list.id.clone(),
        version_before: left.version,
        version,
        added,
        removed,
    })
}

/// True if the changed objects are as the goal has them in this reading.
pub fn is_repaired(drift: &Drift, observed: &ObservedPlane, goal: &PlaneGoal) -> bool {
    let found = |family| observed.lists.get(family).ours();
    match drift {
        Drift::Entries {
            family,
            added,
            removed,
            ..
        } => {
            let (now, wanted) = (found(*family), goal.families.get(*family).as_ref());
            let (Some(now), Some(wanted)) = (now.map(ObservedList::cidrs), wanted) else {
                return false;
            };
            let wanted: BTreeSet<IpNet> = wanted.entries.iter().map(|it| it.cidr).collect();
            let is_right = |it: &IpNet| now.contains(it) == wanted.contains(it);
            added.iter().chain(removed).all(is_right)
        }
        Drift::PrefixList { family, .. } => found(*family).is_some(),
        Drift::Route {
            family,
            table,
            destination,
            ..
        } => {
            let destination = match destination.parse() {
                Ok(prefix) => RouteDestination::Prefix(prefix),
                Err(_) => RouteDestination::List(ListId(destination.clone())),
            };
            let table = observed.tables.iter().find(|it| it.id == *table);
            let route = table.and_then(|table| table.route_to(&destination));
            let wanted = goal.families.get(*family).as_ref();
            let (Some(route), Some(wanted)) = (route, wanted) else {
                return false;
            };
            route.leads_to(&wanted.target)
        }
    }
}

/// The changes of the list itself and of its routes to the target since an earlier pass. `name` is the
/// name of the list in the settings: a list of other settings is no drift.
pub fn of_routes(
    family: Family,
    left: Option<&Left>,
    found: &Found,
    tables: &[RouteTable],
    (name, target): (&str, &RouteTarget),
) -> Vec<Drift> {
    let Some(left) = left else {
        return Vec::new();
    };
    if *found == Found::Absent && left.name == name {
        return vec![Drift::PrefixList {
            family,
            list: left.list.clone(),
        }];
    }
    if found.ours().is_none_or(|ours| ours.list.id != left.list) {
        return Vec::new();
    }
    let destination = RouteDestination::List(left.list.clone());
    let changed = tables.iter().filter_map(|table| {
        let before = left.routes.get(&table.id).filter(|it| **it == target.id)?;
        let route = table.route_to(&destination);
        if route.is_some_and(|route| route.leads_to(target)) {
            return None;
        }
        Some(Drift::Route {
            family,
            table: table.id.clone(),
            destination: left.list.to_string(),
            target_before: before.clone(),
            target: route.map(|route| route.target_name().to_owned()),
        })
    });
    changed.collect()
}
