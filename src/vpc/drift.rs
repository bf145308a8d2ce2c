//! Changes of our entries by other programs, found by the version of the list.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::objects::{ListId, ListVersion};
use super::observed::ObservedList;
use crate::types::{Family, SyncToken};
use crate::words::first_few;

/// The most entries that a message names.
const NAMED: usize = 5;

/// A list as a pass of this writer left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub list: ListId,
    pub version: ListVersion,
    pub token: Option<SyncToken>,
    pub entries: BTreeSet<IpNet>,
}

impl Left {
    /// The list as it is now.
    pub fn of(list: &ObservedList) -> Option<Left> {
        Some(Left {
            list: list.list.id.clone(),
            version: list.list.version?,
            token: list.token(),
            entries: list.cidrs(),
        })
    }
}

/// The change since an earlier pass, if no writer with a newer document explains it.
pub fn of(family: Family, left: Option<&Left>, now: &ObservedList) -> Option<String> {
    let left = left.filter(|left| left.list == now.list.id)?;
    let version = now.list.version?;
    let cidrs = now.cidrs();
    if version <= left.version || cidrs == left.entries || now.token() > left.token {
        return None;
    }
    let added = cidrs.difference(&left.entries).map(|it| format!("+{it}"));
    let removed = left.entries.difference(&cidrs).map(|it| format!("-{it}"));
    Some(format!(
        "{family}: another program has changed prefix list {} from version {} to {version}: {}",
        now.list.id,
        left.version,
        first_few(added.chain(removed), NAMED, ", ")
    ))
}
