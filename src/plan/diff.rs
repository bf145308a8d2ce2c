//! Compares the goal with the observed state.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::firewalls::{Others, diff_firewalls};
use super::foreign::{conflicts, foreign_notes, without_conflicts};
use super::policies::diff_policies;
use super::{Action, FirewallGoal, Goal, Plan, Step};
use crate::firewall::ObservedFirewall;
use crate::objects::{NexthopKind, Route, Rule, RuleAction};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::types::{Family, TableId};

/// Computes the steps from the observed state to the goal, without the objects in conflict with
/// foreign ones.
pub fn plan(whole: &Goal, observed: &ObservedState, ownership: &Ownership) -> Plan {
    let mut plan = Plan::default();
    let goal = &*without_conflicts(whole, observed, ownership);
    let routes = diff_routes(goal, observed, ownership);
    let rules = diff_rules(goal, observed, ownership);
    let others = Others {
        keep_rules: keeps_rules(goal, observed, ownership),
        change_routes: !routes.put_egress.is_empty(),
    };
    let firewalls = diff_firewalls(goal, observed, &others);

    // Additions first: either no rule points at the object yet, or a table in use only gains
    // entries. Missing rules that keep packets off our tables return before the tables grow.
    plan.steps
        .extend(goal.sysctls.iter().cloned().map(Step::Sysctl));
    let policies = diff_policies(goal, observed, &firewalls.put);
    if rules.open.is_empty() {
        // Packets with marks in other bits need their rules. Until then the present marks and rules are
        // in force, and an established flow that takes another path for one packet may end: a
        // masquerade does not survive another interface.
        let mut firewall = [firewalls.put, policies.put].concat();
        let late = if marks_change(goal, observed, ownership) {
            std::mem::take(&mut firewall)
        } else {
            Vec::new()
        };
        plan.steps.extend(firewall);
        plan.steps.extend(rules.put_harmless);
        plan.steps.extend(routes.put_bypass);
        plan.steps.extend(routes.put_egress);
        plan.steps.extend(rules.put_leading);
        plan.steps.extend(late);
        plan.steps.extend(firewalls.settle);
    } else {
        // The egress is shut by rules and firewall together, and the egress table is in use: storage
        // gets its own path before the egress path opens, and the firewall that shuts the path goes
        // last.
        plan.steps.extend(rules.put_harmless);
        plan.steps.extend(routes.put_bypass);
        plan.steps.extend(rules.put_leading);
        plan.steps.extend(routes.put_egress);
        plan.steps.extend(rules.open);
        plan.steps.extend(firewalls.put);
        plan.steps.extend(firewalls.settle);
        plan.steps.extend(policies.put);
    }
    // Deletions, in the opposite order.
    plan.steps.extend(rules.take);
    plan.steps.extend(routes.take_egress);
    plan.steps.extend(routes.take_bypass);
    plan.steps.extend(leftover_nexthops(observed, ownership));
    plan.steps.extend(policies.take);
    plan.steps.extend(firewalls.take);

    if goal.refuse_conflicts {
        plan.conflicts = conflicts(whole, observed, ownership);
    }
    // There is no step for a firewall in foreign hands: without a conflict, the pass would report
    // success.
    plan.conflicts.extend(firewalls.conflicts);
    if goal.refuse_conflicts {
        plan.notes = foreign_notes(observed, ownership, &plan.conflicts);
        plan.notes.extend(firewalls.notes);
        plan.notes.extend(policies.notes);
    }
    plan
}

/// True if rules of the bypass path stay, although no rule is wanted.
fn keeps_rules(goal: &Goal, observed: &ObservedState, ownership: &Ownership) -> bool {
    goal.rules.is_empty()
        && observed.rules.iter().any(|rule| {
            *goal.frozen.get(rule.family)
                && ownership.owns_rule(rule)
                && !leads_to_egress(rule, ownership)
        })
}

/// True if pinned flows get marks in other bits, and a firewall of ours sets the present ones.
fn marks_change(goal: &Goal, observed: &ObservedState, ownership: &Ownership) -> bool {
    let masks = |rules: &[Rule]| -> BTreeSet<u32> {
        let pins = rules
            .iter()
            .filter(|rule| ownership.owns_rule(rule) && ownership.leads_to_pins(rule));
        pins.filter_map(|rule| Some(rule.mark?.mask)).collect()
    };
    let (wanted, present) = (masks(&goal.rules), masks(&observed.rules));
    let is_there = match &goal.firewall {
        FirewallGoal::Policy { backend, .. } => {
            let found = observed.firewalls.get(backend);
            matches!(found, Some(ObservedFirewall::Owned(_)))
        }
        FirewallGoal::Earlier(_) => false,
    };
    is_there && !wanted.is_empty() && !present.is_subset(&wanted)
}

#[derive(Default)]
struct RouteSteps {
    put_bypass: Vec<Step>,
    put_egress: Vec<Step>,
    take_bypass: Vec<Step>,
    take_egress: Vec<Step>,
}

fn diff_routes(goal: &Goal, observed: &ObservedState, ownership: &Ownership) -> RouteSteps {
    let mut steps = RouteSteps::default();
    let mut put = |action: Action, route: &Route, before: Option<&Route>| {
        let list = if ownership.is_bypass_table(route.key.table) {
            &mut steps.put_bypass
        } else {
            &mut steps.put_egress
        };
        list.push(Step::Route {
            action,
            route: route.clone(),
            before: before.cloned().map(Box::new),
        });
    };
    let mut gone: Vec<&Route> = Vec::new();
    let mut wanted = goal.routes.iter().peekable();
    let mut present = observed
        .routes
        .iter()
        .filter(|route| ownership.owns_route(route))
        .peekable();
    loop {
        let order = match (wanted.peek(), present.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // Equal routes need no order of keys: nearly all routes, in nearly all passes.
            (Some(ours), Some(there)) if ours == there => {
                wanted.next();
                present.next();
                continue;
            }
            (Some(ours), Some(there)) => ours.key.cmp(&there.key),
        };
        match order {
            Ordering::Less => wanted
                .next()
                .into_iter()
                .for_each(|route| put(Action::Add, route, None)),
            Ordering::Greater => gone.extend(present.next()),
            Ordering::Equal => {
                if let (Some(wanted), Some(present)) = (wanted.next(), present.next()) {
                    put(Action::Replace, wanted, Some(present));
                }
            }
        }
    }
    // `unreachable` is added last and deleted first; `throw`, which sends the private networks
    // back to the main table, is added first and deleted last.
    steps
        .put_egress
        .sort_by_key(|step| closing_rank(step, ownership));
    for route in gone {
        let bypass = ownership.is_bypass_table(route.key.table);
        if bypass && *goal.frozen.get(route.key.family()) {
            continue;
        }
        let step = Step::Route {
            action: Action::Delete,
            route: route.clone(),
            before: None,
        };
        if bypass {
            steps.take_bypass.push(step)
        } else {
            steps.take_egress.push(step)
        }
    }
    steps
        .take_egress
        .sort_by_key(|step| closing_rank(step, ownership));
    steps.take_egress.reverse();
    // Deleting IPv4 routes in ascending order costs the kernel eight times as much as in descending
    // order (measured with 16,000 routes; `update_suffix`, net/ipv4/fib_trie.c).
    steps.take_bypass.reverse();
    steps
}

/// Within a table: `throw`, then the default through the gateways, then `unreachable`. The tables of
/// pinned flows come before the egress table, whose default moves flows to them.
fn closing_rank(step: &Step, ownership: &Ownership) -> (Option<Family>, TableId, u8) {
    use crate::objects::RouteTarget::{Throw, Unreachable};
    let key = match step {
        Step::Route { route, .. } => Some(route.key),
        _ => None,
    };
    let table = key.map(|key| key.table);
    let pinned = table.filter(|table| ownership.is_pin_table(*table));
    let place = pinned.unwrap_or(TableId(u32::MAX));
    let rank = match step {
        Step::Route {
            route: Route { target: Throw, .. },
            ..
        } => 0,
        Step::Route {
            route: Route {
                target: Unreachable,
                ..
            },
            ..
        } => 2,
        _ => 1,
    };
    (key.map(|key| key.family()), place, rank)
}

struct RuleSteps {
    /// Rules that only lead past our tables.
    put_harmless: Vec<Step>,
    /// Rules that look one of our tables up.
    put_leading: Vec<Step>,
    /// Deletions of the rules for answers of a host whose egress is shut before the first pass.
    open: Vec<Step>,
    take: Vec<Step>,
}

fn diff_rules(goal: &Goal, observed: &ObservedState, ownership: &Ownership) -> RuleSteps {
    // The kernel accepts two equal rules, so the difference is one of multisets.
    let mut missing: Vec<&Rule> = goal.rules.iter().collect();
    let mut gone: Vec<&Rule> = Vec::new();
    for rule in observed
        .rules
        .iter()
        .filter(|rule| ownership.owns_rule(rule))
    {
        match missing.iter().position(|wanted| *wanted == rule) {
            Some(place) => drop(missing.swap_remove(place)),
            None if *goal.frozen.get(rule.family)
                && !leads_to_egress(rule, ownership)
                && !ownership.leads_to_pins(rule)
                && !rule.is_of_shut()
                && !is_superseded(rule, goal) => {}
            None => gone.push(rule),
        }
    }
    // The last field orders the rules of pinned flows, which have one priority.
    let rank = |rule: &Rule| {
        let first = opening_rank(rule, ownership);
        (first, rule.family, rule.priority, rule.mark)
    };
    missing.sort_by_key(|rule| rank(rule));
    gone.sort_by_key(|rule| std::cmp::Reverse(rank(rule)));
    let step = |action, rule: &Rule| Step::Rule {
        action,
        rule: rule.clone(),
    };
    let (leading, harmless): (Vec<&Rule>, Vec<&Rule>) = missing
        .into_iter()
        .partition(|rule| leads_to_our_tables(rule, ownership));
    let add = |rules: Vec<&Rule>| {
        rules
            .into_iter()
            .map(|rule| step(Action::Add, rule))
            .collect()
    };
    let delete = |rules: Vec<&Rule>| {
        let rules = rules.into_iter();
        rules.map(|rule| step(Action::Delete, rule)).collect()
    };
    // Without a goal of rules, the deletion in the usual order opens everything.
    let opens = |rule: &&Rule| rule.is_of_shut() && !goal.rules.is_empty();
    let (open, gone): (Vec<&Rule>, Vec<&Rule>) = gone.into_iter().partition(opens);
    RuleSteps {
        put_harmless: add(harmless),
        put_leading: add(leading),
        open: delete(open),
        take: delete(gone),
    }
}

/// True if a rule of the goal does the same with another realm.
fn is_superseded(rule: &Rule, goal: &Goal) -> bool {
    let mut wanted = goal.rules.iter();
    wanted.any(|other| {
        let same = other.family == rule.family && other.priority == rule.priority;
        same && other.action == rule.action && other.foreign_selectors != rule.foreign_selectors
    })
}

/// The order in which rules are added. Each rule is safe without the later ones: the target of the
/// goto, the goto, the main table without its default, pinned flows, the bypass, and last the egress
/// path, which may block traffic.
fn opening_rank(rule: &Rule, ownership: &Ownership) -> u8 {
    match rule.action {
        RuleAction::Nop => 0,
        RuleAction::Goto(_) => 1,
        RuleAction::Lookup {
            suppress_prefixlength: Some(_),
            ..
        } => 2,
        RuleAction::Lookup { table, .. }
            if ownership.is_bypass_table(table) || ownership.is_pin_table(table) =>
        {
            3
        }
        // The look-ups of the firewall belong to the bypass.
        RuleAction::Other(_) if rule.mark.is_some() && !rule.is_of_shut() => 3,
        RuleAction::Lookup { .. } | RuleAction::Other(_) => 4,
    }
}

fn leads_to_our_tables(rule: &Rule, ownership: &Ownership) -> bool {
    opening_rank(rule, ownership) >= 3
}

fn leads_to_egress(rule: &Rule, ownership: &Ownership) -> bool {
    opening_rank(rule, ownership) == 4
}

/// Deletions of the nexthop objects that an earlier version left. The kernel deletes the routes
/// over a nexthop object along with the object, so these steps follow all route steps. Groups
/// come first: the kernel deletes a group with its last member.
fn leftover_nexthops(observed: &ObservedState, ownership: &Ownership) -> Vec<Step> {
    let mut leftover: Vec<_> = observed
        .nexthops
        .iter()
        .filter(|object| ownership.owns_nexthop(object))
        .collect();
    leftover.sort_by_key(|object| {
        let is_group = matches!(object.kind, NexthopKind::Group(_));
        (!is_group, object.id)
    });
    leftover.into_iter().cloned().map(Step::Nexthop).collect()
}
