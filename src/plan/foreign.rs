//! Foreign objects in the place of ours (a conflict) or beside ours (a note).

use std::borrow::Cow;

use super::{Conflict, Goal};
use crate::objects::{Route, RouteKey, RuleAction};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::{Family, TableId};

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

/// The goal without the routes whose place a foreign route has, and without the rules that lead to a
/// bypass table with a foreign default: the default would take all traffic off the egress path. A
/// foreign default of the egress table would do the same, so that halves of ours, which are more
/// specific, come before it.
pub(super) fn without_conflicts<'g>(
    goal: &'g Goal,
    observed: &ObservedState,
    ownership: &Ownership,
) -> Cow<'g, Goal> {
    let foreign: Vec<RouteKey> = foreign_routes(observed, ownership)
        .map(|route| route.key)
        .collect();
    if foreign.is_empty() || !goal.refuse_conflicts {
        return Cow::Borrowed(goal);
    }
    let mut left = goal.clone();
    for family in Family::ALL {
        left.routes.extend(halves(
            goal,
            &foreign,
            family,
            ownership.current.egress_table,
        ));
    }
    left.routes.sort();
    left.routes.retain(|route| !foreign.contains(&route.key));
    let bypass = ownership.current.bypass_table;
    let captured = foreign
        .iter()
        .filter(|key| key.table == bypass && key.dst.prefix_len() == 0);
    for family in captured.map(RouteKey::family) {
        left.rules.retain(|rule| {
            let leads_there =
                matches!(rule.action, RuleAction::Lookup { table, .. } if table == bypass);
            rule.family != family || !leads_there
        });
    }
    Cow::Owned(left)
}

/// Our defaults of the egress table, each as two routes, if a foreign default precedes them.
fn halves(goal: &Goal, foreign: &[RouteKey], family: Family, table: TableId) -> Vec<Route> {
    let is_default = |key: &RouteKey| {
        key.table == table && key.family() == family && key.dst.prefix_len() == 0 && key.tos == 0
    };
    let ours: Vec<&Route> = goal
        .routes
        .iter()
        .filter(|it| is_default(&it.key))
        .collect();
    let Some(best) = ours.iter().map(|route| route.key.metric).min() else {
        return Vec::new();
    };
    let precedes = |key: &RouteKey| is_default(key) && key.metric <= best;
    if !foreign.iter().any(precedes) {
        return Vec::new();
    }
    let parts = family.default_prefix().subnets(1).into_iter().flatten();
    let part = |dst| {
        ours.iter().map(move |route| Route {
            key: RouteKey { dst, ..route.key },
            ..(*route).clone()
        })
    };
    parts.flat_map(part).collect()
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
