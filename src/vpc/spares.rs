//! Spare lists: writers that find no list at the same time create one each, and EC2 allows lists with
//! equal names. All writers choose the same one of them, and the others go.

use super::goal::PlaneGoal;
use super::objects::{PrefixList, RouteDestination, RouteTable};
use super::observed::{ObservedList, ObservedPlane};
use super::step::Step;
use crate::types::Family;

/// The steps that take the spare lists of a family away, for a plan without other steps. Routes go
/// first, and each only from a table with a route to our list. None while our list lacks entries, or
/// while a writer with a newer document is at work on any of the lists.
pub(super) fn steps(
    goal: &PlaneGoal,
    family: Family,
    ours: &ObservedList,
    observed: &ObservedPlane,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let present = ours.cidrs();
    let wanted = goal.families.get(family).as_ref();
    let mut entries = wanted.into_iter().flat_map(|wanted| &wanted.entries);
    let is_whole = entries.all(|entry| present.contains(&entry.cidr));
    if !is_whole || observed.newest(family) > Some(goal.token) {
        return steps;
    }
    let leads = |table: &RouteTable, list: &PrefixList| {
        let destination = RouteDestination::List(list.id.clone());
        table.route_to(&destination).is_some()
    };
    for spare in observed.spares.get(family) {
        let tables = observed.tables.iter();
        let used: Vec<&RouteTable> = tables.filter(|table| leads(table, spare)).collect();
        if used.iter().any(|table| !leads(table, &ours.list)) {
            continue;
        }
        steps.extend(used.iter().map(|table| Step::DeleteSpareRoute {
            family,
            table: table.id.clone(),
            list: spare.id.clone(),
        }));
        steps.push(Step::DeleteSpare {
            family,
            list: spare.id.clone(),
        });
    }
    steps
}
