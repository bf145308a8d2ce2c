//! The effect of a held document, for the operator who decides.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::figures;
use crate::ranges::{Group, Groups, PrefixSet};

/// Prefixes listed for each group and direction; the others are counted.
const LISTED: usize = 5;

/// The change of one group if the held document were accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChange {
    pub group: Group,
    /// In force, and absent from the document.
    pub lost: Share,
    /// In the document, and not in force; empty where only the withdrawals wait.
    pub gained: Share,
}

/// A part of a group's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Tenths of a percent of the group's addresses in force.
    pub per_mille: u64,
    /// The number of prefixes, aggregated.
    pub prefixes: usize,
    /// The first prefixes.
    pub first: Vec<IpNet>,
}

impl Share {
    fn of(group: &Group, part: &PrefixSet, total: u128) -> Share {
        let addresses = part.address_count(group.family);
        let percent = figures::percent(addresses, total);
        let prefixes = part.prefixes(group.family);
        Share {
            // A float beyond the range saturates.
            per_mille: (percent * 10.0).round() as u64,
            prefixes: prefixes.len(),
            first: prefixes.into_iter().take(LISTED).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.prefixes == 0
    }
}

/// The changes of all groups that differ.
pub(super) fn changes(
    before: Option<&Groups>,
    after: &Groups,
    additions_in_force: bool,
) -> Vec<HeldChange> {
    let none = Groups::new();
    let before = before.unwrap_or(&none);
    let mut groups: Vec<&Group> = before.keys().chain(after.keys()).collect();
    groups.sort();
    groups.dedup();
    let set = |groups: &Groups, group: &Group| -> PrefixSet {
        groups.get(group).into_iter().flatten().collect()
    };
    let change = |group: &Group| {
        let (old, new) = (set(before, group), set(after, group));
        let total = old.address_count(group.family);
        let gained = if additions_in_force {
            Share::default()
        } else {
            Share::of(group, &new.subtract(&old), total)
        };
        HeldChange {
            group: group.clone(),
            lost: Share::of(group, &old.subtract(&new), total),
            gained,
        }
    };
    let all = groups.into_iter().map(change);
    all.filter(|change| !change.lost.is_empty() || !change.gained.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Family, Region, Service};

    fn groups(prefixes: &[&str]) -> Groups {
        let group = Group {
            service: Service::from("S3"),
            region: Region::from("us-east-1"),
            family: Family::Ipv4,
        };
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap());
        Groups::from([(group, prefixes.collect())])
    }

    #[test]
    fn losses_and_gains_are_shares_of_the_addresses_in_force() {
        let before = groups(&["10.0.0.0/16", "10.2.0.0/16", "10.4.0.0/15"]);
        let after = groups(&["10.2.0.0/16", "10.4.0.0/15", "10.8.0.0/13"]);
        let found = changes(Some(&before), &after, false);
        assert_eq!(found.len(), 1);
        let HeldChange { lost, gained, .. } = &found[0];
        assert_eq!((lost.per_mille, lost.prefixes), (250, 1));
        assert_eq!(lost.first, ["10.0.0.0/16".parse().unwrap()]);
        assert_eq!((gained.per_mille, gained.prefixes), (2_000, 1));
        let held = changes(Some(&before), &after, true);
        assert_eq!(held[0].gained, Share::default());
        assert_eq!(changes(Some(&before), &before, false), []);
        // Without a document in force, everything is new, and no share of anything.
        let first = changes(None, &after, false);
        assert_eq!(
            (first[0].gained.per_mille, first[0].gained.prefixes),
            (0, 3)
        );
    }
}
