//! The quota of routes in a table: each list counts with `MaxEntries`, for each family.

use super::objects::{ListId, RouteDestination, RouteOrigin, RouteTable};
use super::observed::{ObservedList, ObservedPlane};
use crate::types::Family;

/// The most entries of a list ("Amazon VPC quotas").
pub const LARGEST_LIST: u32 = 1000;

/// The weights of AWS's own lists, by the end of their names ("AWS-managed prefix lists").
const WEIGHTS: [(&str, u32); 6] = [
    (".cloudfront.origin-facing", 55),
    (".route53-healthchecks", 25),
    (".vpc-lattice", 10),
    (".s3express", 6),
    (".s3", 1),
    (".dynamodb", 1),
];

/// The share of a table's quota in use by one family, without our list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Routes to prefixes, without propagated ones: those have a quota of their own.
    pub routes: u32,
    /// Other lists with their weights.
    pub lists: Vec<(ListId, u32)>,
}

impl Usage {
    /// The usage of a table.
    pub fn of(table: &RouteTable, family: Family, observed: &ObservedPlane) -> Usage {
        let ours = observed.lists.get(family).ours();
        let mut usage = Usage {
            routes: 0,
            lists: Vec::new(),
        };
        for route in &table.routes {
            match &route.destination {
                RouteDestination::Prefix(prefix) => {
                    let counts = route.origin != RouteOrigin::Propagated;
                    if counts && Family::of_net(prefix) == family {
                        usage.routes += 1;
                    }
                }
                RouteDestination::List(list) => {
                    let other = observed.others.get(list);
                    let is_ours = ours.is_some_and(|ours| ours.list.id == *list);
                    if let Some(other) = other.filter(|_| !is_ours)
                        && other.list.family == Some(family)
                    {
                        usage.lists.push((list.clone(), weight(other)));
                    }
                }
            }
        }
        usage
    }

    /// Routes and weights together.
    pub fn total(&self) -> u32 {
        let lists = self.lists.iter().map(|(_, weight)| *weight);
        self.routes.saturating_add(lists.sum())
    }

    /// The room for our list.
    pub fn room(&self, quota: u32) -> u32 {
        quota.saturating_sub(self.total())
    }

    /// The arithmetic, with our list of this size.
    pub fn arithmetic(&self, ours: u32) -> String {
        let mut text = format!("{} routes", self.routes);
        for (list, weight) in &self.lists {
            text.push_str(&format!(" + {weight} of {list}"));
        }
        let total = self.total().saturating_add(ours);
        format!("{text} + {ours} of our list = {total}")
    }
}

/// The weight of another list in a table.
fn weight(list: &ObservedList) -> u32 {
    if let Some(max_entries) = list.list.max_entries {
        return max_entries;
    }
    let name = &list.list.name;
    let known = WEIGHTS.iter().find(|(end, _)| name.ends_with(end));
    match known {
        Some((_, weight)) => *weight,
        None => u32::try_from(list.entries.len()).unwrap_or(u32::MAX),
    }
}
