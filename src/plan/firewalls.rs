//! Compares the firewalls.

use super::{Action, Conflict, FirewallAfter, FirewallGoal, Goal, Step};
use crate::firewall::{ObservedFirewall, OwnedFirewall, Ruleset};
use crate::observed::ObservedState;

#[derive(Default)]
pub(super) struct FirewallSteps {
    pub put: Vec<Step>,
    /// After the routes.
    pub settle: Vec<Step>,
    pub take: Vec<Step>,
    pub conflicts: Vec<Conflict>,
    pub notes: Vec<String>,
}

/// The other steps of the plan.
pub(super) struct Others {
    /// Rules that need the firewall stay, although none is wanted.
    pub keep_rules: bool,
    /// Egress routes change.
    pub change_routes: bool,
}

/// The steps to the wanted firewall.
pub(super) fn diff_firewalls(
    goal: &Goal,
    observed: &ObservedState,
    others: &Others,
) -> FirewallSteps {
    let mut steps = differences(goal, observed, others.keep_rules);
    if others.change_routes {
        go_by_way(goal, observed, &mut steps);
    }
    steps
}

/// Puts the firewall for changing routes first, and the wanted one after the routes: until then new
/// flows leave by gateways that only the first one passes.
fn go_by_way(goal: &Goal, observed: &ObservedState, steps: &mut FirewallSteps) {
    let (
        Some((way, way_text)),
        FirewallGoal::Policy {
            backend,
            ruleset,
            text,
        },
    ) = (&goal.on_the_way, &goal.firewall)
    else {
        return;
    };
    let Some(ObservedFirewall::Owned(found)) = observed.firewalls.get(backend) else {
        return;
    };
    let of_backend =
        |step: &Step| matches!(step, Step::Firewall { backend: it, .. } if it == backend);
    steps.put.retain(|step| !of_backend(step));
    let replace =
        |(before, after_text): (&Vec<String>, &Vec<String>), after: &Ruleset| Step::Firewall {
            backend: *backend,
            action: Action::Replace,
            before: before.clone(),
            after_text: after_text.clone(),
            after: FirewallAfter::Policy(after.clone()),
        };
    if found.text != *way_text {
        steps.put.push(replace((&found.text, way_text), way));
    }
    if way_text != text {
        steps.settle.push(replace((way_text, text), ruleset));
    }
}

fn differences(goal: &Goal, observed: &ObservedState, keeps_rules: bool) -> FirewallSteps {
    let mut steps = FirewallSteps::default();
    for (backend, found) in &observed.firewalls {
        let (after, after_text) = match &goal.firewall {
            FirewallGoal::Policy {
                backend: chosen,
                ruleset,
                text,
            } if chosen == backend => (FirewallAfter::Policy(ruleset.clone()), text.clone()),
            FirewallGoal::Earlier(earlier) => match earlier.get(backend) {
                Some(owned) => (FirewallAfter::Earlier(owned.clone()), owned.text.clone()),
                None => (FirewallAfter::Nothing, Vec::new()),
            },
            FirewallGoal::Policy { .. } => (FirewallAfter::Nothing, Vec::new()),
        };
        let nothing = after == FirewallAfter::Nothing;
        if nothing && keeps_rules {
            continue;
        }
        let (action, before) = match found {
            ObservedFirewall::Absent if nothing || after_text.is_empty() => continue,
            ObservedFirewall::Absent => (Action::Add, Vec::new()),
            ObservedFirewall::Owned(OwnedFirewall { text, .. }) if nothing => {
                (Action::Delete, text.clone())
            }
            ObservedFirewall::Owned(OwnedFirewall { text, .. }) if *text == after_text => continue,
            ObservedFirewall::Owned(OwnedFirewall { text, .. }) => (Action::Replace, text.clone()),
            ObservedFirewall::Unavailable(_) | ObservedFirewall::Foreign(_) if nothing => continue,
            ObservedFirewall::Foreign(what) => {
                steps.conflicts.push(Conflict {
                    message: format!("{backend}: {what}"),
                });
                continue;
            }
            ObservedFirewall::Unavailable(why) => {
                steps.conflicts.push(Conflict {
                    message: format!("{backend}: {why}"),
                });
                continue;
            }
            ObservedFirewall::Unreadable(why) => {
                steps
                    .notes
                    .push(format!("{backend}: cannot read the present rules: {why}"));
                if nothing {
                    continue;
                }
                (Action::Replace, Vec::new())
            }
        };
        let list = if nothing {
            &mut steps.take
        } else {
            &mut steps.put
        };
        list.push(Step::Firewall {
            backend: *backend,
            action,
            before,
            after_text,
            after,
        });
    }
    steps
}
