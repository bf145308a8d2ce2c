//! The ledger of our single routes, and the tag of a table that vouches for it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::goal::target_of;
use super::objects::{
    RouteDestination, RouteOrigin, RouteTable, RouteTableId, RouteTarget, VpcRoute,
};
use crate::config::VpcPlaneConfig;
use crate::types::{Family, PerFamily};

/// The tag of a table with the hash of the ledger.
pub const HASH: &str = "trailblazer:routes";

/// The destinations of our routes by table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger(pub BTreeMap<RouteTableId, BTreeSet<IpNet>>);

impl Ledger {
    /// Identifies the ledger with the targets of its routes.
    pub fn fingerprint<'t>(&self, targets: impl Iterator<Item = &'t str>) -> String {
        let mut hasher = Sha256::new();
        for target in targets {
            hasher.update(format!("{target}\n"));
        }
        for (table, routes) in &self.0 {
            hasher.update(format!("{table} {}\n", hash(routes)));
        }
        hex(&hasher.finalize())
    }
}

/// The destinations of our routes in the tables.
pub fn present(
    tables: &[RouteTable],
    ledger: Option<&Ledger>,
    targets: &[RouteTarget],
) -> PerFamily<Vec<IpNet>> {
    let mut found = BTreeSet::new();
    for table in tables {
        let Owned::Known(mut ours) = owned(table, ledger, targets, &BTreeSet::new()) else {
            continue;
        };
        let is_there =
            |prefix: &IpNet| table.route_to(&RouteDestination::Prefix(*prefix)).is_some();
        ours.retain(is_there);
        found.append(&mut ours);
    }
    PerFamily::from_fn(|family| {
        let of_family = |prefix: &&IpNet| Family::of_net(prefix) == family;
        found.iter().filter(of_family).copied().collect()
    })
}

/// The hash of a table's routes.
pub fn hash(routes: &BTreeSet<IpNet>) -> String {
    let mut hasher = Sha256::new();
    for route in routes {
        hasher.update(route.to_string());
        hasher.update("\n");
    }
    hex(&hasher.finalize())
}

/// The first half of a digest, enough against accidents.
fn hex(digest: &[u8]) -> String {
    let half = digest.iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// A static route with a prefix that is neither local nor a default.
pub fn prefix_of(route: &VpcRoute) -> Option<IpNet> {
    match (&route.destination, &route.origin) {
        (RouteDestination::Prefix(prefix), RouteOrigin::CreateRoute)
            if !route.is_local() && prefix.prefix_len() > 0 =>
        {
            Some(*prefix)
        }
        _ => None,
    }
}

/// The targets of the settings.
pub fn targets(plane: &VpcPlaneConfig) -> Vec<RouteTarget> {
    let families = Family::ALL.into_iter();
    families
        .filter_map(|family| target_of(plane, family))
        .collect()
}

/// The static prefixes of a table that lead to one of the targets: ours, or those of others.
pub fn led(table: &RouteTable, targets: &[RouteTarget]) -> BTreeSet<IpNet> {
    let routes = table.routes.iter();
    let to_target = routes.filter(|route| targets.iter().any(|target| route.leads_to(target)));
    to_target.filter_map(prefix_of).collect()
}

/// Our routes of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    Known(BTreeSet<IpNet>),
    /// There is no ledger, and the routes to the targets have another hash than the tag.
    Unknown,
}

/// Finds our routes: by the ledger, else by the tag of the table. `wanted` has the prefixes of the
/// document.
///
/// A ledger that differs from the tag is out of date: the disk has refused the ledger of a later pass,
/// which has added routes and deleted none. Its routes are found by the tag, which such a pass writes
/// ahead of the additions.
pub fn owned(
    table: &RouteTable,
    ledger: Option<&Ledger>,
    targets: &[RouteTarget],
    wanted: &BTreeSet<IpNet>,
) -> Owned {
    let known = ledger.and_then(|ledger| ledger.0.get(&table.id));
    let Some(tag) = table.tags.get(HASH) else {
        return Owned::Known(known.cloned().unwrap_or_default());
    };
    if let Some(known) = known
        && hash(known) == *tag
    {
        return Owned::Known(known.clone());
    }
    let candidates = led(table, targets);
    if hash(&candidates) == *tag {
        return Owned::Known(candidates);
    }
    let Some(known) = known else {
        // A pass that ended amid its additions.
        let is_ours = candidates.is_subset(wanted) && hash(wanted) == *tag;
        return match is_ours {
            true => Owned::Known(candidates),
            false => Owned::Unknown,
        };
    };
    // Beside routes of others to the same target; the pass may have ended amid its additions.
    let added = candidates.intersection(wanted);
    let later: BTreeSet<IpNet> = known.iter().chain(added).copied().collect();
    let whole: BTreeSet<IpNet> = known.union(wanted).copied().collect();
    Owned::Known(match [hash(&later), hash(&whole)].contains(tag) {
        true => later,
        false => known.clone(),
    })
}
