//! Foreign objects in the place of ours (a conflict) or beside ours (a note).

use std::collections::BTreeSet;

use super::{Conflict, Goal, ObjectKey};
use crate::objects::{Route, RouteKey};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::Family;

/// Foreign routes with the key of one of our routes, and foreign defaults in our tables.
pub(super) fn conflicts(
    goal: &Goal,
    observed: &ObservedState,
    ownership: &Ownership,
) -> Vec<Conflict> {
    let current = [
        ownership.current.bypass_table,
        ownership.current.egress_table,
    ];
    let mut found = Vec::new();
    for route in foreign_routes(observed, ownership) {
        let key = &route.key;
        let same_key = goal
            .routes
            .binary_search_by(|ours| ours.key.cmp(key))
            .is_ok();
        let what = if same_key {
            "has the same prefix and metric as a route of Trailblazer"
        } else if key.dst.prefix_len() == 0 && current.contains(&key.table) {
            "is a default route in Trailblazer's table"
        } else {
            continue;
        };
        found.push(Conflict {
            message: format!(
                "foreign route {} in table {} (metric {}, protocol {}) {what}; remove it (ip {}route del {} table {} metric {}), or set another table in the config",
                key.dst,
                key.table,
                key.metric,
                route.protocol,
                if key.family() == Family::Ipv6 { "-6 " } else { "" },
                key.dst,
                key.table,
                key.metric
            ),
        });
    }
    found
}

/// Objects of the goal in the place of which a foreign object exists.
pub fn taken_places(
    goal: &Goal,
    observed: &ObservedState,
    ownership: &Ownership,
) -> BTreeSet<ObjectKey> {
    let routes = foreign_routes(observed, ownership)
        .map(|route| route.key)
        .filter(|key| {
            let place = goal.routes.binary_search_by(|ours| ours.key.cmp(key));
            place.is_ok()
        });
    routes.map(ObjectKey::Route).collect()
}

fn foreign_routes<'a>(
    observed: &'a ObservedState,
    ownership: &'a Ownership,
) -> impl Iterator<Item = &'a Route> {
    observed
        .routes
        .iter()
        .filter(|route| !ownership.owns_route(route))
}

/// At most this many foreign routes are named; the rest is counted.
const NAMED: usize = 5;

pub(super) fn foreign_notes(
    observed: &ObservedState,
    ownership: &Ownership,
    conflicts: &[Conflict],
) -> Vec<String> {
    let mut notes = Vec::new();
    if conflicts.is_empty() {
        let describe = |key: &RouteKey, protocol| {
            format!(
                "foreign route {} in table {} (protocol {protocol}) stays unchanged",
                key.dst, key.table
            )
        };
        let foreign: Vec<&Route> = foreign_routes(observed, ownership).collect();
        notes.extend(
            foreign
                .iter()
                .take(NAMED)
                .map(|route| describe(&route.key, route.protocol)),
        );
        if foreign.len() > NAMED {
            notes.push(format!(
                "{} more foreign routes in Trailblazer's tables stay unchanged",
                foreign.len() - NAMED
            ));
        }
    }
    let first = ownership.current.priority;
    let last = ownership.current.landing();
    for rule in &observed.rules {
        if (first..=last).contains(&rule.priority) && !ownership.owns_rule(rule) {
            notes.push(format!(
                "foreign {} rule {} (protocol {}) has a priority of Trailblazer's range {first}-{last} and stays unchanged",
                rule.family, rule.priority, rule.protocol
            ));
        }
    }
    notes
}
