//! The prefixes of the bypass path, each with its origin, and the aggregate of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::prefix_set::PrefixSet;
use super::select::Group;
use crate::types::{Family, PerFamily, SyncToken};

/// The reason for which a prefix is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Selected(Group),
    /// Absent from a newer document; the guard holds the withdrawal.
    Held(Group),
    /// Withdrawn, and kept for `[guard] hold_down`.
    HoldDown(Group),
    /// Found in our routing table after a loss of the state that explains the prefix.
    Kernel,
    /// `[select] include`
    Include,
}

impl Origin {
    /// True if the document in force lists the prefix.
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

/// The prefixes to put in force, by origin and aggregated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    pub sync_token: Option<SyncToken>,
    /// `createDate` of the document in force, as written; empty without a document.
    pub create_date: String,
    /// Aggregated, sorted, without `exclude`: the destinations of the bypass table.
    pub prefixes: PerFamily<Vec<IpNet>>,
    /// The number of distinct selected prefixes before aggregation, without hold-down, include
    /// and exclude.
    pub selected: PerFamily<usize>,
    /// The prefixes by origin, before exclude and aggregation.
    pub origins: BTreeMap<Origin, Vec<IpNet>>,
    /// `[select] exclude`
    pub exclude: Vec<IpNet>,
}

impl RangeSet {
    /// Aggregates the prefixes of all origins; `exclude` beats every origin.
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
            prefixes: PerFamily::from_fn(|family| {
                // The bypass table has no default route, whatever adds up to one.
                let mut prefixes = left.prefixes(family);
                prefixes.retain(|prefix| prefix.prefix_len() > 0);
                prefixes
            }),
            selected: PerFamily::from_fn(|family| count_selected(&origins, family)),
            origins,
            exclude: exclude.to_vec(),
        }
    }

    /// The number of prefixes after aggregation.
    pub fn aggregated(&self) -> PerFamily<usize> {
        PerFamily::from_fn(|family| self.prefixes.get(family).len())
    }

    /// The number of prefixes that the documents in force list in each group, before aggregation.
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

    /// The aggregated prefix that sends the address over the bypass path, if any.
    pub fn matching(&self, address: IpAddr) -> Option<IpNet> {
        let prefixes = self.prefixes.get(Family::of(address));
        // The prefixes are sorted and disjoint: only the last prefix that starts at or before
        // the address can contain the address.
        let index = prefixes.partition_point(|prefix| prefix.network() <= address);
        let candidate = prefixes.get(index.checked_sub(1)?)?;
        candidate.contains(&address).then_some(*candidate)
    }

    /// Every prefix that contains the address, with its origin, even if `exclude` contains the
    /// address too.
    pub fn origins_of(&self, address: IpAddr) -> Vec<(&Origin, IpNet)> {
        self.origins
            .iter()
            .flat_map(|(origin, prefixes)| prefixes.iter().map(move |prefix| (origin, *prefix)))
            .filter(|(_, prefix)| prefix.contains(&address))
            .collect()
    }

    /// The first prefix of `exclude` that contains the address.
    pub fn excluded_by(&self, address: IpAddr) -> Option<IpNet> {
        self.exclude
            .iter()
            .copied()
            .find(|prefix| prefix.contains(&address))
    }
}

/// Counts distinct prefixes: a document may list one prefix under several services.
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
        // The prefixes of one group are distinct already: no set in the common case.
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
    fn aggregates_all_origins_without_the_excluded() {
        let set = example();
        assert_eq!(set.prefixes.ipv4, nets(&["3.5.0.0/19", "54.231.0.0/17"]));
        assert_eq!(set.prefixes.ipv6, nets(&["2001:db8::/32"]));
        assert_eq!(set.selected, PerFamily { ipv4: 2, ipv6: 0 });
        assert_eq!(set.aggregated(), PerFamily { ipv4: 2, ipv6: 1 });
    }

    #[test]
    fn explains_the_path_of_an_address() {
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
