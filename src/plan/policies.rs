//! Compares the forward policies.

use super::{Action, FirewallAfter, FirewallGoal, Goal, Step};
use crate::firewall::{Chain, Hook, ObservedFirewall, Ruleset};
use crate::objects::ForwardPolicy;
use crate::observed::ObservedState;

#[derive(Default)]
pub(super) struct PolicySteps {
    pub(super) put: Vec<Step>,
    pub(super) take: Vec<Step>,
    pub(super) notes: Vec<String>,
}

/// The policies to add and to delete, beside the steps that put `firewalls` in. A policy refuses
/// packets without a mark, so none is added without a firewall that marks.
pub(super) fn diff_policies(
    goal: &Goal,
    observed: &ObservedState,
    firewalls: &[Step],
) -> PolicySteps {
    let mut steps = PolicySteps::default();
    let found = &observed.policies;
    if let Some(why) = &found.unreadable {
        if !goal.policies.is_empty() {
            steps
                .notes
                .push(format!("xfrm policies are unknown: {why}"));
        }
        return steps;
    }
    let step = |action, policy: &ForwardPolicy| Step::Policy {
        action,
        policy: *policy,
    };
    let wanted = goal.policies.iter();
    let missing = wanted.filter(|policy| !found.ours.contains(policy));
    if found.unusable.is_none() && will_mark(goal, observed, firewalls) {
        // Those that allow first: the action is the first field.
        steps.put = missing.map(|policy| step(Action::Add, policy)).collect();
    }
    let gone = found.ours.iter().rev();
    let gone = gone.filter(|policy| !goal.policies.contains(policy));
    steps.take = gone.map(|policy| step(Action::Delete, policy)).collect();
    steps
}

/// True if the firewall marks forwarded packets once its steps are done.
fn will_mark(goal: &Goal, observed: &ObservedState, firewalls: &[Step]) -> bool {
    let (backend, ruleset, text) = match &goal.firewall {
        FirewallGoal::Policy {
            backend,
            ruleset,
            text,
        } => (backend, ruleset, text),
        // The policies were there, beside the same firewall.
        FirewallGoal::Earlier(_) => return true,
    };
    let is_there = match observed.firewalls.get(backend) {
        Some(ObservedFirewall::Owned(owned)) => owned.text == *text,
        _ => false,
    };
    let comes = firewalls.iter().any(|step| match step {
        Step::Firewall { after, .. } => matches!(after, FirewallAfter::Policy(_)),
        _ => false,
    });
    marks(ruleset) && (is_there || comes)
}

fn marks(ruleset: &Ruleset) -> bool {
    let is_mark = |chain: &Chain| chain.hook == Hook::PreroutingMark;
    ruleset.chains.iter().any(is_mark)
}
