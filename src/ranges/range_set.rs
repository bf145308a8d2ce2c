//! What takes the bypass path: every prefix with the reason why, and the aggregate of all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::prefix_set::PrefixSet;
use super::select::Group;
use crate::types::{Family, PerFamily, SyncToken};

/// Why a prefix is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The document lists it.
    Selected(Group),
    /// A newer document no longer lists it; the guard holds the withdrawal.
    Held(Group),
    /// Withdrawn, and kept for `[guard] hold_down`.
    HoldDown(Group),
    /// Found in our table while the state that explains it was lost.
    Kernel,
    /// `[select] include`
    Include,
}

impl Origin {
    /// Whether the document, as far as it is in force, is the reason.
    pub fn is_selection(&self) -> bool {
        matches!(self, Origin::Selected(_) | Origin::Held(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Selected(group) => write!(f, "{group}"),
            Origin::Held(group) => write!(f, "{group} (withdrawal held by the guard)"),
            Origin::HoldDown(group) => write!(f, "{group} (withdrawn, in hold-down)"),
            Origin::Kernel => f.write_str("kept from the routes in the kernel"),
            Origin::Include => f.write_str("include"),
        }
    }
}

/// The prefixes to put in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    /// The sync token of the document in force, if there is one.
    pub sync_token: Option<SyncToken>,
    /// Its `createDate`, as written; empty without a document.
    pub create_date: String,
    /// Aggregated, sorted, without the excluded: the destinations of the bypass table.
    pub prefixes: PerFamily<Vec<IpNet>>,
    /// How many distinct prefixes the selection has before aggregation; without hold-down,
    /// include and exclude.
    pub selected: PerFamily<usize>,
    /// The prefixes as they came in, by reason, before exclude and aggregation.
    pub origins: BTreeMap<Origin, Vec<IpNet>>,
    /// `[select] exclude`
    pub exclude: Vec<IpNet>,
}

impl RangeSet {
    /// Puts the prefixes of all origins together; `exclude` wins over every one of them.
    pub fn build(
        sync_token: Option<SyncToken>,
        create_date: String,
        origins: BTreeMap<Origin, Vec<IpNet>>,
        exclude: &[IpNet],
    ) -> RangeSet {
        let all: PrefixSet = origins.values().flatten().collect();
        let left = all.subtract(&exclude.iter().collect());
        RangeSet {
            sync_token,
            create_date,
            prefixes: PerFamily::from_fn(|family| left.prefixes(family)),
            selected: PerFamily::from_fn(|family| count_selected(&origins, family)),
            origins,
            exclude: exclude.to_vec(),
        }
    }

    /// How many prefixes there are after aggregation.
    pub fn aggregated(&self) -> PerFamily<usize> {
        PerFamily::from_fn(|family| self.prefixes.get(family).len())
    }

    /// How many prefixes the documents in force list under each group, before aggregation.
    pub fn selected_groups(&self) -> Vec<(Group, usize)> {
        let mut groups: BTreeMap<&Group, usize> = BTreeMap::new();
        for (origin, prefixes) in &self.origins {
            if let Origin::Selected(group) | Origin::Held(group) = origin {
                *groups.entry(group).or_default() += prefixes.len();
            }
        }
        groups
            .into_iter()
            .map(|(group, count)| (group.clone(), count))
            .collect()
    }

    /// The aggregated prefix that sends the address over the bypass path, if one does.
    pub fn matching(&self, address: IpAddr) -> Option<IpNet> {
        let prefixes = self.prefixes.get(Family::of(address));
        // Sorted and disjoint: only the last one that starts at or before it can hold it.
        let index = prefixes.partition_point(|prefix| prefix.network() <= address);
        let candidate = prefixes.get(index.checked_sub(1)?)?;
        candidate.contains(&address).then_some(*candidate)
    }

    /// Every prefix that holds the address, with its reason, whether or not it is excluded.
    pub fn origins_of(&self, address: IpAddr) -> Vec<(&Origin, IpNet)> {
        self.origins
            .iter()
            .flat_map(|(origin, prefixes)| prefixes.iter().map(move |prefix| (origin, *prefix)))
            .filter(|(_, prefix)| prefix.contains(&address))
            .collect()
    }

    /// The exclusion that holds the address, if one does.
    pub fn excluded_by(&self, address: IpAddr) -> Option<IpNet> {
        self.exclude
            .iter()
            .copied()
            .find(|prefix| prefix.contains(&address))
    }
}

/// A prefix may be listed under several services: it counts once.
fn count_selected(origins: &BTreeMap<Origin, Vec<IpNet>>, family: Family) -> usize {
    let lists: Vec<&Vec<IpNet>> = origins
        .iter()
        .filter(|(origin, prefixes)| {
            origin.is_selection()
                && prefixes
                    .first()
                    .is_some_and(|first| Family::of_net(first) == family)
        })
        .map(|(_, prefixes)| prefixes)
        .collect();
    match lists[..] {
        [] => 0,
        // One group is distinct already; spares the set in the common case.
        [only] => only.len(),
        _ => lists.into_iter().flatten().collect::<BTreeSet<_>>().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn group(service: &str) -> Group {
        Group {
            service: service.into(),
            region: "us-east-1".into(),
            family: Family::Ipv4,
        }
    }

    fn example() -> RangeSet {
        RangeSet::build(
            Some(SyncToken(7)),
            String::new(),
            BTreeMap::from([
                (
                    Origin::Selected(group("S3")),
                    nets(&["3.5.0.0/20", "3.5.16.0/20"]),
                ),
                (Origin::Selected(group("EC2")), nets(&["3.5.16.0/20"])),
                (Origin::HoldDown(group("S3")), nets(&["54.231.0.0/16"])),
                (Origin::Include, nets(&["192.0.2.0/24", "2001:db8::/32"])),
            ]),
            &nets(&["54.231.128.0/17", "192.0.2.0/24"]),
        )
    }

    #[test]
    fn aggregates_and_excludes() {
        let set = example();
        assert_eq!(set.prefixes.ipv4, nets(&["3.5.0.0/19", "54.231.0.0/17"]));
        assert_eq!(set.prefixes.ipv6, nets(&["2001:db8::/32"]));
        assert_eq!(set.selected, PerFamily { ipv4: 2, ipv6: 0 });
        assert_eq!(set.aggregated(), PerFamily { ipv4: 2, ipv6: 1 });
    }

    #[test]
    fn says_why_an_address_bypasses() {
        let set = example();
        let of = |address: &str| address.parse::<IpAddr>().unwrap();
        assert_eq!(set.matching(of("3.5.17.1")), Some(nets(&["3.5.0.0/19"])[0]));
        assert_eq!(set.origins_of(of("3.5.17.1")).len(), 2);
        assert_eq!(set.matching(of("54.231.200.1")), None);
        assert_eq!(
            set.excluded_by(of("54.231.200.1")),
            Some(nets(&["54.231.128.0/17"])[0])
        );
        assert_eq!(set.origins_of(of("54.231.200.1")).len(), 1);
        assert_eq!(set.matching(of("1.1.1.1")), None);
        assert_eq!(set.matching(of("255.0.0.1")), None);
    }
}
