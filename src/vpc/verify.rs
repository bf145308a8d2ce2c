//! Tells changes of other programs from readings that lag behind.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::objects::RouteTableId;
use super::observed::ObservedPlane;
use super::step::{KnownLists, Step};
use crate::types::Family;
use crate::words::first_few;

/// The most entries that a message names.
const NAMED: usize = 5;

/// The object of a step, and the kind of its change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    List(Family),
    Size(Family),
    Mark(Family),
    OldMarks(Family),
    Added(IpNet),
    Removed(IpNet),
    Route(RouteTableId, Family, Option<IpNet>),
    OtherTarget(RouteTableId, Family, Option<IpNet>),
    NoRoute(RouteTableId, Family, Option<IpNet>),
    TableTags(RouteTableId, Vec<String>),
    Spare,
}

fn changes(step: &Step) -> Vec<Change> {
    let family = step.family();
    match step {
        Step::CreateList { entries, .. } => {
            let added = entries.iter().map(|entry| Change::Added(entry.cidr));
            std::iter::once(Change::List(family)).chain(added).collect()
        }
        Step::ResizeList { .. } => vec![Change::Size(family)],
        Step::RaiseToken { .. } => vec![Change::Mark(family)],
        Step::DropTokens { .. } => vec![Change::OldMarks(family)],
        Step::ModifyEntries { add, remove, .. } => {
            let added = add.iter().map(|entry| Change::Added(entry.cidr));
            let removed = remove.iter().copied().map(Change::Removed);
            added.chain(removed).collect()
        }
        Step::CreateRoute { table, prefix, .. } => {
            vec![Change::Route(table.clone(), family, *prefix)]
        }
        Step::ReplaceRoute { table, prefix, .. } => {
            vec![Change::OtherTarget(table.clone(), family, *prefix)]
        }
        Step::DeleteRoute { table, prefix, .. } => {
            vec![Change::NoRoute(table.clone(), family, *prefix)]
        }
        Step::TagTable { table, tags } => {
            let keys = tags.keys().cloned().collect();
            vec![Change::TableTags(table.clone(), keys)]
        }
        Step::UntagTable { table, keys } => {
            vec![Change::TableTags(table.clone(), keys.clone())]
        }
        Step::DeleteList { .. } | Step::DeleteSpareRoute { .. } | Step::DeleteSpare { .. } => {
            vec![Change::Spare]
        }
    }
}

/// The changes that a pass has made, and those that a reading has shown.
#[derive(Debug)]
pub(super) struct Made {
    all: BTreeSet<Change>,
    shown: BTreeSet<Change>,
}

impl Made {
    /// After all of these steps.
    pub(super) fn by(steps: &[Step]) -> Made {
        Made {
            all: steps.iter().flat_map(changes).collect(),
            shown: BTreeSet::new(),
        }
    }

    /// True if a reading that still needs these steps has the change of another program. A reading that
    /// lags behind needs steps that were made, and that no reading has shown yet.
    pub(super) fn were_undone(&mut self, rest: &[Step]) -> bool {
        let missing: BTreeSet<Change> = rest.iter().flat_map(changes).collect();
        // A new list may be unknown to a server of EC2 for minutes.
        let no_list = missing.iter().any(|it| matches!(it, Change::List(_)));
        let lags = |it: &Change| self.all.contains(it) && !self.shown.contains(it);
        let undone = !no_list && !missing.iter().all(lags);
        self.shown.extend(self.all.difference(&missing).cloned());
        undone
    }
}

/// True if another writer has changed a list since the changes of this one.
pub(super) fn is_overtaken(known: &KnownLists, observed: &ObservedPlane) -> bool {
    Family::ALL.into_iter().any(|family| {
        let ours = observed.lists.get(family).ours();
        let (known, now) = (known.get(family), ours.map(|ours| &ours.list));
        known
            .as_ref()
            .zip(now)
            .is_some_and(|(known, now)| known.id != now.id || now.version > known.version)
    })
}

/// The first difference between a reading and the goal, in words.
pub(super) fn difference(rest: &[Step]) -> String {
    let Some(first) = rest.first() else {
        return "nothing is missing".to_owned();
    };
    let family = first.family();
    let of = |prefix: &Option<IpNet>| match prefix {
        Some(prefix) => prefix.to_string(),
        None => format!("the {family} list"),
    };
    let text = match first {
        Step::ModifyEntries { add, remove, .. } => {
            let missing = add.iter().map(|entry| format!("{} is missing", entry.cidr));
            let extra = remove.iter().map(|cidr| format!("{cidr} is too much"));
            let entries = first_few(missing.chain(extra), NAMED, ", ");
            format!("entries of the {family} list: {entries}")
        }
        Step::CreateRoute { table, prefix, .. } => {
            format!("route table {table} has no route for {}", of(prefix))
        }
        Step::ReplaceRoute {
            table,
            prefix,
            from,
            ..
        } => format!("route table {table} leads {} to {from}", of(prefix)),
        Step::DeleteRoute { table, prefix, .. } => {
            format!("route table {table} still has the route for {}", of(prefix))
        }
        Step::CreateList { name, .. } => format!("there is no prefix list {name}"),
        other => other.to_json().to_string(),
    };
    match rest.len() {
        1 => text,
        more => format!("{text} (and {} more steps)", more - 1),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vpc::objects::RouteTarget;

    fn route(table: &str) -> Step {
        Step::CreateRoute {
            family: Family::Ipv4,
            table: RouteTableId(table.to_owned()),
            prefix: None,
            target: RouteTarget::from_id("igw-0aaaaaaaaaaaaaaa1").unwrap(),
        }
    }

    #[test]
    fn reading_lags_until_it_shows_a_change_and_then_forgets_it() {
        let mut made = Made::by(&[route("rtb-1"), route("rtb-2")]);
        assert!(!made.were_undone(&[route("rtb-1"), route("rtb-2")]));
        assert!(!made.were_undone(&[route("rtb-2")]));
        assert!(made.were_undone(&[route("rtb-1")]), "shown before");
        let mut made = Made::by(&[route("rtb-1")]);
        assert!(
            made.were_undone(&[route("rtb-3")]),
            "not a step of the pass"
        );
    }
}
