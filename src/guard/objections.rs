//! Objections: the reasons for a candidate to wait.

use ipnet::IpNet;

use super::figures;
use crate::config::GuardConfig;
use crate::ranges::{Document, Group, Groups, PrefixSet};
use crate::types::SyncToken;

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
    candidate: &Document<'_>,
    groups: &Groups,
    last: Option<&Groups>,
    config: &GuardConfig,
    now: i64,
) -> Vec<Objection> {
    let mut found = Vec::new();
    found.extend(future_token(candidate.sync_token, now));
    found.extend(too_many(groups, config));
    for (group, prefixes) in last.into_iter().flatten() {
        found.extend(loss(group, prefixes, groups.get(group), config));
    }
    found
}

/// Compares the token with the wall clock itself, since the token is a time of the outside world.
/// On a host with a clock days behind, every true document waits until the clock is set.
pub(super) fn future_token(token: SyncToken, now: i64) -> Option<Objection> {
    let clock = u64::try_from(now).unwrap_or(0);
    let ahead = token.0.saturating_sub(clock);
    (ahead > TOKEN_AHEAD).then(|| Objection {
        guard: "future-token",
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

fn too_many(groups: &Groups, config: &GuardConfig) -> Option<Objection> {
    // Aggregation never adds prefixes: the set is only built near the bound.
    if groups.values().map(Vec::len).sum::<usize>() <= config.max_prefixes {
        return None;
    }
    let count = groups
        .values()
        .flatten()
        .collect::<PrefixSet>()
        .all_prefixes()
        .len();
    (count > config.max_prefixes).then(|| Objection {
        guard: "max-prefixes",
        scope: Scope::Everything,
        message: format!(
            "it selects {}, aggregated, more than `[guard] max_prefixes` = {}; raise the bound if \
             the selection is intended",
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
