//! Findings that make a candidate wait.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::figures;
use crate::config::GuardConfig;
use crate::ranges::{Document, Group, PrefixSet};

/// A token further ahead of the clock than this is no mistake of a clock: a day, in seconds.
/// Amazon's token is the time of publication, so that a true one never lies ahead at all.
pub(super) const TOKEN_AHEAD: u64 = 86_400;

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// What the candidate no longer lists; its additions go in.
    Withdrawals,
    /// The whole candidate.
    Everything,
}

/// A reason to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) guard: &'static str,
    pub(super) scope: Scope,
    pub(super) message: String,
}

type Groups = BTreeMap<Group, Vec<IpNet>>;

/// Everything that speaks against putting the candidate in force as it is. `last` is the last
/// known good under the current config; without it there is nothing to lose.
pub(super) fn findings(
    candidate: &Document<'_>,
    groups: &Groups,
    last: Option<&Groups>,
    config: &GuardConfig,
    now: i64,
) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(future_token(candidate, now));
    found.extend(too_many(groups, config));
    for (group, prefixes) in last.into_iter().flatten() {
        found.extend(loss(group, prefixes, groups.get(group), config));
    }
    found
}

/// The token is a time of the outside world: what it is measured with is the wall clock itself.
/// On a host whose clock is days behind, every true document waits here until it is set.
fn future_token(candidate: &Document<'_>, now: i64) -> Option<Finding> {
    let clock = u64::try_from(now).unwrap_or(0);
    let ahead = candidate.sync_token.0.saturating_sub(clock);
    (ahead > TOKEN_AHEAD).then(|| Finding {
        guard: "future-token",
        scope: Scope::Everything,
        message: format!(
            "its sync token {} is {} ahead of this host's clock ({}); in force it would make \
             every true document older for ever; check the source and the clock",
            figures::token(candidate.sync_token),
            days(ahead),
            figures::time(now),
        ),
    })
}

fn days(seconds: u64) -> String {
    format!("{:.1} days", seconds as f64 / 86_400.0)
}

fn too_many(groups: &Groups, config: &GuardConfig) -> Option<Finding> {
    // Aggregation never makes more of them: the set is only built near the bound.
    if groups.values().map(Vec::len).sum::<usize>() <= config.max_prefixes {
        return None;
    }
    let count = groups
        .values()
        .flatten()
        .collect::<PrefixSet>()
        .all_prefixes()
        .len();
    (count > config.max_prefixes).then(|| Finding {
        guard: "max-prefixes",
        scope: Scope::Everything,
        message: format!(
            "it selects {}, aggregated, more than `[guard] max_prefixes` = {}; raise that if \
             the selection is meant",
            figures::prefixes(count),
            config.max_prefixes
        ),
    })
}

fn loss(
    group: &Group,
    last: &[IpNet],
    candidate: Option<&Vec<IpNet>>,
    config: &GuardConfig,
) -> Option<Finding> {
    // "100%" allows all, an empty selection included.
    if config.max_loss >= 100.0 || candidate.is_some_and(|candidate| candidate == last) {
        return None;
    }
    let before: PrefixSet = last.iter().collect();
    let total = before.address_count(group.family);
    let Some(candidate) = candidate else {
        return Some(Finding {
            guard: "empty",
            scope: Scope::Everything,
            message: format!(
                "{group} would lose all of its {} ({})",
                figures::prefixes(last.len()),
                figures::share(group.family, total, total),
            ),
        });
    };
    let gone = before.subtract(&candidate.iter().collect());
    let lost = gone.address_count(group.family);
    (figures::percent(lost, total) > config.max_loss).then(|| Finding {
        guard: "loss",
        scope: Scope::Withdrawals,
        message: format!(
            "{group} would lose {}, more than `[guard] max_loss` = {} %: {}",
            figures::share(group.family, lost, total),
            config.max_loss,
            figures::few_prefixes(&gone.prefixes(group.family)),
        ),
    })
}
