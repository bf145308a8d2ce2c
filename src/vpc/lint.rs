//! Routes of a table that overlap with our list.

use super::goal::FamilyGoal;
use super::objects::{RouteDestination, RouteTable};
use super::observed::ObservedPlane;
use crate::degraded::{Degradation, Part};
use crate::ranges::PrefixSet;
use crate::types::Family;
use crate::words::first_few;

/// The most prefixes that a message names.
const NAMED: usize = 3;

/// A static route that beats our list for some of its addresses: routes with a prefix as long as the
/// entry or longer do. `None` without one.
pub fn static_rivals(table: &RouteTable, goal: &FamilyGoal) -> Option<String> {
    let rivals = table.routes.iter().filter_map(|route| {
        let RouteDestination::Prefix(prefix) = &route.destination else {
            return None;
        };
        let elsewhere = !route.leads_to(&goal.target);
        let inside = goal.entries.iter().any(|entry| entry.cidr.contains(prefix));
        let target = route
            .target
            .as_ref()
            .map_or("an unknown target", |it| &it.id);
        (elsewhere && inside && !route.is_local()).then(|| format!("{prefix} to {target}"))
    });
    let rivals: Vec<String> = rivals.collect();
    (!rivals.is_empty()).then(|| {
        format!(
            "route table {}: static routes beat the list: {}",
            table.id,
            first_few(rivals, NAMED, ", ")
        )
    })
}

/// Other lists of the table that overlap with ours and have another target: EC2 picks one of the two
/// at random. `None` without one.
pub fn list_rivals(
    table: &RouteTable,
    family: Family,
    goal: &FamilyGoal,
    observed: &ObservedPlane,
) -> Option<String> {
    let wanted = goal.prefixes();
    let ours = observed.lists.get(family).ours();
    for route in &table.routes {
        let RouteDestination::List(list) = &route.destination else {
            continue;
        };
        let is_ours = ours.is_some_and(|ours| ours.list.id == *list);
        let Some(other) = observed.others.get(list).filter(|_| !is_ours) else {
            continue;
        };
        if route.leads_to(&goal.target) {
            continue;
        }
        let entries: PrefixSet = other.entries.iter().map(|entry| &entry.cidr).collect();
        let shared = entries.intersection(&wanted).prefixes(family);
        if !shared.is_empty() {
            let target = route
                .target
                .as_ref()
                .map_or("an unknown target", |it| &it.id);
            return Some(format!(
                "route table {}: prefix list {list} ({}) leads {} to {target} too, and EC2 picks one \
                 of two lists at random",
                table.id,
                other.list.name,
                first_few(shared, NAMED, ", ")
            ));
        }
    }
    None
}

/// A route of ours whose target is gone.
pub fn blackhole(
    table: &RouteTable,
    destination: &dyn std::fmt::Display,
    family: Family,
    goal: &FamilyGoal,
) -> Degradation {
    let (id, target) = (&table.id, &goal.target);
    let reason = format!(
        "route table {id} drops packets to {destination}: the target {target} is gone or detached"
    );
    let advice = "attach the target, or set [vpc_plane] target to another one";
    Degradation::new(Part::Bypass, family, reason).with_advice(advice)
}
