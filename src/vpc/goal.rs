//! The state that the settings and the document ask for.

use ipnet::IpNet;

use super::objects::{Entry, RouteTarget};
use super::tags;
use crate::config::VpcPlaneConfig;
use crate::ranges::{Origin, PrefixSet, RangeSet};
use crate::types::{Family, PerFamily, SyncToken};

/// The addresses that one /64 counts for, so that one limit serves both families: 4096 networks of
/// /64 count as one address.
const IPV6_UNIT: u128 = (1 << 64) * 4096;

/// The goal of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyGoal {
    pub target: RouteTarget,
    /// Sorted by prefix, with descriptions for new entries.
    pub entries: Vec<Entry>,
    /// Addresses that an entry keeps while it is there: withdrawn ones, in hold-down. No entry is
    /// added for them, so that several writers with different memories agree in the end.
    pub kept: PrefixSet,
}

impl FamilyGoal {
    /// The prefixes of the entries.
    pub fn prefixes(&self) -> PrefixSet {
        self.entries.iter().map(|entry| &entry.cidr).collect()
    }
}

/// The goal.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaneGoal {
    pub name: String,
    pub token: SyncToken,
    /// `None` for a family without a target, or outside the selected families.
    pub families: PerFamily<Option<FamilyGoal>>,
    pub headroom: f64,
    pub quota: u32,
    pub floor: u64,
    /// True if no prefix may be withdrawn: the record of withdrawn prefixes is not on disk.
    pub frozen: bool,
}

impl PlaneGoal {
    /// The goal of the settings with the prefixes in force. `None` without a document.
    pub fn new(plane: &VpcPlaneConfig, ranges: &RangeSet) -> Option<PlaneGoal> {
        let token = ranges.sync_token?;
        let exclude: PrefixSet = ranges.exclude.iter().collect();
        let of = |wanted: fn(&Origin) -> bool| -> PrefixSet {
            let origins = ranges.origins.iter();
            let origins = origins.filter(|(origin, _)| wanted(origin));
            let all: PrefixSet = origins.flat_map(|(_, prefixes)| prefixes).collect();
            all.subtract(&exclude)
        };
        let wanted = of(|origin| !is_kept(origin));
        let kept = of(is_kept);
        let origins = ranges.origins.iter();
        let origins = origins.filter(|(origin, _)| !is_kept(origin));
        let origins: Vec<(String, PrefixSet)> = origins
            .map(|(origin, prefixes)| (origin.to_string(), prefixes.iter().collect()))
            .collect();
        let goal = |family: Family| {
            let target = target_of(plane, family)?;
            let prefixes = wanted.prefixes(family).into_iter();
            Some(FamilyGoal {
                target,
                entries: prefixes
                    .filter(|prefix| prefix.prefix_len() > 0)
                    .map(|cidr| Entry {
                        cidr,
                        description: Some(tags::description(&origins_of(&origins, &cidr), token)),
                    })
                    .collect(),
                kept: kept.clone(),
            })
        };
        Some(PlaneGoal {
            name: plane.name.clone(),
            token,
            families: PerFamily::from_fn(goal),
            headroom: plane.headroom,
            quota: plane.quota,
            floor: plane.floor,
            frozen: false,
        })
    }

    /// The goals of the families with a target.
    pub fn wanted(&self) -> impl Iterator<Item = &FamilyGoal> {
        let families = Family::ALL.into_iter();
        families.filter_map(|family| self.families.get(family).as_ref())
    }

    /// `MaxEntries` for this many entries.
    pub fn room_for(&self, entries: usize) -> u32 {
        let count = u32::try_from(entries).unwrap_or(u32::MAX);
        let room = (f64::from(count) * (1.0 + self.headroom / 100.0)).ceil();
        // The cast saturates, and EC2's limit is far below.
        (room as u32).max(count).max(1)
    }
}

/// The target of the settings.
pub fn target_of(plane: &VpcPlaneConfig, family: Family) -> Option<RouteTarget> {
    RouteTarget::from_id(plane.target.get(family).as_deref()?)
}

/// True for addresses that keep an entry and get none.
fn is_kept(origin: &Origin) -> bool {
    matches!(origin, Origin::HoldDown(_) | Origin::Kernel)
}

/// The origins with an address in the prefix.
fn origins_of(origins: &[(String, PrefixSet)], prefix: &IpNet) -> Vec<String> {
    let found = origins.iter().filter(|(_, set)| set.intersects(prefix));
    found.map(|(origin, _)| origin.clone()).collect()
}

/// The addresses of one family in the unit of `floor`, rounded up.
pub fn weighed(set: &PrefixSet, family: Family) -> u128 {
    let count = set.address_count(family);
    match family {
        Family::Ipv4 => count,
        Family::Ipv6 => count.div_ceil(IPV6_UNIT),
    }
}
