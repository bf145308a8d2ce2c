//! Objections: the reasons for a candidate to wait.

use ipnet::IpNet;

use super::figures;
use super::inputs::GuardInputs;
use super::state::FUTURE_TOKEN;
use crate::config::GuardConfig;
use crate::ranges::{Group, Groups, PrefixSet};
use crate::types::{Family, SyncToken};

/// A sync token more than a day (in seconds) in the future cannot be clock skew. Amazon's token is
/// the time of publication, so a true token is never in the future.
pub(super) const TOKEN_AHEAD: u64 = 86_400;

/// The part of a candidate that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Prefixes absent from the candidate; the candidate's additions go in.
    Withdrawals,
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) guard: &'static str,
    pub(super) scope: Scope,
    pub(super) message: String,
}

/// All objections to putting the candidate in force as a whole. `last` is the last known good
/// under the current config; without a last known good there is nothing to lose.
pub(super) fn objections(
    inputs: &GuardInputs<'_>,
    token: SyncToken,
    groups: &Groups,
    last: Option<&Groups>,
) -> Vec<Objection> {
    let config = inputs.config;
    let mut found = Vec::new();
    found.extend(future_token(token, inputs.now));
    for (group, prefixes) in last.into_iter().flatten() {
        found.extend(loss(group, prefixes, groups.get(group), config));
    }
    found.extend(too_many(inputs, groups, last));
    for (group, prefixes) in groups {
        let last = last.and_then(|last| last.get(group));
        found.extend(gain(group, last, prefixes, config));
    }
    found
}

/// A gain below this many addresses is never held for its share: small groups grow by factors.
const SMALL_GAIN: u128 = 1 << 20;

/// IPv6 networks of /64 that weigh as much as one IPv4 address.
const NETWORKS_PER_ADDRESS: u128 = 1 << 12;

fn gain(
    group: &Group,
    last: Option<&Vec<IpNet>>,
    candidate: &[IpNet],
    config: &GuardConfig,
) -> Option<Objection> {
    if last.is_some_and(|last| last == candidate) {
        return None;
    }
    let before: PrefixSet = last.into_iter().flatten().collect();
    let new = candidate.iter().collect::<PrefixSet>().subtract(&before);
    let gained = new.address_count(group.family);
    let weight = match group.family {
        Family::Ipv4 => gained,
        Family::Ipv6 => (gained >> 64) / NETWORKS_PER_ADDRESS,
    };
    let total = before.address_count(group.family);
    let share = total > 0 && figures::percent(gained, total) > config.max_gain;
    let bound = if weight > u128::from(config.max_new_addresses) {
        format!("`[guard] max_new_addresses` = {}", config.max_new_addresses)
    } else if share && weight > SMALL_GAIN {
        format!("`[guard] max_gain` = {} %", config.max_gain)
    } else {
        return None;
    };
    let few = figures::few_prefixes(&new.prefixes(group.family));
    Some(Objection {
        guard: "gain",
        scope: Scope::Everything,
        message: format!(
            "{group} would gain {}, more than {bound}: {few}",
            figures::share(group.family, gained, total)
        ),
    })
}

/// Compares the token with the wall clock itself, since the token is a time of the outside world.
/// On a host with a clock days behind, every true document waits until the clock is set.
pub(super) fn future_token(token: SyncToken, now: i64) -> Option<Objection> {
    let clock = u64::try_from(now).unwrap_or(0);
    let ahead = token.0.saturating_sub(clock);
    (ahead > TOKEN_AHEAD).then(|| Objection {
        guard: FUTURE_TOKEN,
        scope: Scope::Everything,
        message: format!(
            "its sync token {} is {} ahead of this host's clock ({}); in force, it would make \
             every true document look older for ever; check the source and the clock",
            figures::token(token),
            days(ahead),
            figures::time(now),
        ),
    })
}

fn days(seconds: u64) -> String {
    format!("{:.1} days", seconds as f64 / 86_400.0)
}

/// Counts the prefixes that would be in force: withdrawn prefixes that keep their routes too.
fn too_many(inputs: &GuardInputs<'_>, groups: &Groups, last: Option<&Groups>) -> Option<Objection> {
    let config = inputs.config;
    let held_down = inputs.state.hold_down.iter();
    let held_down = held_down
        .filter(|entry| inputs.now < entry.until(config) && entry.is_wanted(inputs.selector))
        .map(|entry| &entry.prefix);
    let withdrawn = last.filter(|_| !config.hold_down.is_zero());
    let kept: Vec<&IpNet> = held_down
        .chain(
            withdrawn
                .into_iter()
                .flat_map(|last| last.values().flatten()),
        )
        .collect();
    // Aggregation never adds prefixes: the set is only built near the bound.
    let listed = groups.values().map(Vec::len).sum::<usize>();
    if listed + kept.len() <= config.max_prefixes {
        return None;
    }
    let selected: PrefixSet = groups.values().flatten().collect();
    let count = selected.all_prefixes().len();
    let all = selected.union(&kept.into_iter().collect());
    let in_force = all.all_prefixes().len();
    // A document that only withdraws makes nothing worse.
    let before: PrefixSet = last
        .into_iter()
        .flat_map(|last| last.values().flatten())
        .collect();
    let grows = !selected.subtract(&before).is_empty();
    let (shown, more) = if count > config.max_prefixes {
        (count, String::new())
    } else if in_force > config.max_prefixes && grows {
        let kept = in_force.saturating_sub(count);
        (
            in_force,
            format!(", {kept} of them withdrawn and kept for `hold_down`"),
        )
    } else {
        return None;
    };
    Some(Objection {
        guard: "max-prefixes",
        scope: Scope::Everything,
        message: format!(
            "it selects {}{more}, aggregated, more than `[guard] max_prefixes` = {}; raise the \
             bound if the selection is intended",
            figures::prefixes(shown),
            config.max_prefixes
        ),
    })
}

fn loss(
    group: &Group,
    last: &[IpNet],
    candidate: Option<&Vec<IpNet>>,
    config: &GuardConfig,
) -> Option<Objection> {
    // "100%" allows any loss, including an empty selection.
    if config.max_loss >= 100.0 || candidate.is_some_and(|candidate| candidate == last) {
        return None;
    }
    let before: PrefixSet = last.iter().collect();
    let total = before.address_count(group.family);
    let Some(candidate) = candidate else {
        return Some(Objection {
            guard: "empty",
            scope: Scope::Everything,
            message: format!(
                "{group}: the document withdraws everything: {} ({})",
                figures::prefixes(last.len()),
                figures::share(group.family, total, total),
            ),
        });
    };
    let gone = before.subtract(&candidate.iter().collect());
    let lost = gone.address_count(group.family);
    (figures::percent(lost, total) > config.max_loss).then(|| Objection {
        guard: "loss",
        scope: Scope::Withdrawals,
        message: format!(
            "{group}: the document withdraws {}, more than `[guard] max_loss` = {} %: {}",
            figures::share(group.family, lost, total),
            config.max_loss,
            figures::few_prefixes(&gone.prefixes(group.family)),
        ),
    })
}
