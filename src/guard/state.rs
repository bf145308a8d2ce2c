//! The guard's memory between passes, stored as JSON in the state dir.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::anchor::{Anchor, RENEW_AFTER, ROUNDING};
use super::changes::HeldChange;
use crate::config::GuardConfig;
use crate::ranges::{Group, PrefixSet, Selection, Selector};
use crate::types::SyncToken;

/// The guard of tokens in the future.
pub(super) const FUTURE_TOKEN: &str = "future-token";

/// The guard's memory. Readers ignore unknown fields and fill missing fields with defaults, so
/// older and newer versions can read each other's files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardState {
    /// The clocks at the moment of writing; see [`GuardState::rebase`].
    pub clock: Option<Anchor>,
    /// The waiting candidate, if there is one.
    pub hold: Option<Hold>,
    /// Withdrawn prefixes that keep their route for a while.
    pub hold_down: Vec<HoldDown>,
    /// The selection of the settings at the last judgement; `None` in files of older versions.
    pub selector: Option<Selector>,
}

impl GuardState {
    /// The stored memory with every time moved as far as somebody has moved the wall clock since.
    /// Without an anchor (files of older versions), the times stay.
    pub fn rebase(&self, now: &Anchor) -> GuardState {
        let (jump, clock) = match &self.clock {
            None => (0, now.clone()),
            Some(before) => match (now.jump_since(before), now.since(before)) {
                // The remainder stays in the anchor, so that many remainders don't add up.
                (jump, Some(went)) if jump.abs() <= ROUNDING => {
                    let wall_s = before.wall_s.saturating_add_unsigned(went);
                    let clock = Anchor {
                        wall_s,
                        ..now.clone()
                    };
                    (0, clock)
                }
                (jump, _) => (jump, now.clone()),
            },
        };
        let moved = |time: i64| time.saturating_add(jump);
        GuardState {
            selector: self.selector.clone(),
            clock: Some(clock),
            hold: self.hold.as_ref().map(|hold| Hold {
                since: moved(hold.since),
                last_seen: moved(hold.last_seen),
                ..hold.clone()
            }),
            hold_down: self
                .hold_down
                .iter()
                .map(|entry| HoldDown {
                    since: moved(entry.since),
                    ..entry.clone()
                })
                .collect(),
        }
    }

    /// The wall clock at the moment of the memory, in seconds since the epoch. A judgement takes the
    /// present from here: a second reading of the clock may be a second off, and a stored time then
    /// lies in the future of one reading and not of the other.
    pub fn present(&self) -> Option<i64> {
        self.clock.as_ref().map(|now| now.wall_s)
    }

    /// True if the content differs from the stored memory, apart from the clocks.
    pub fn differs_from(&self, stored: &GuardState) -> bool {
        let as_now = match &self.clock {
            Some(now) => stored.rebase(now),
            None => stored.clone(),
        };
        self.hold != as_now.hold
            || self.hold_down != as_now.hold_down
            || self.selector != as_now.selector
    }

    /// True if the stored memory must be written again although the content is the same: clocks
    /// run in the memory, and a reboot would forget more of their time than [`RENEW_AFTER`].
    pub fn needs_new_anchor(&self, stored: &GuardState) -> bool {
        let Some(now) = &self.clock else {
            return false;
        };
        let clocks_run = self.hold.is_some() || !self.hold_down.is_empty();
        let age = stored.clock.as_ref().and_then(|before| now.since(before));
        clocks_run && age.is_none_or(|age| age >= RENEW_AFTER.as_secs())
    }
}

/// A candidate that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// The first of an unbroken series of fetches with the same selection, in seconds since the
    /// epoch.
    pub since: i64,
    /// The last fetch of the series, in seconds since the epoch.
    pub last_seen: i64,
    /// A fetch has failed or was rejected since the last of the series: the time until the next
    /// one doesn't count.
    pub interrupted: bool,
    /// SHA-256 of the candidate's selection. Not of the document: Amazon publishes several
    /// documents a day, most of which contain the same selected prefixes.
    pub digest: String,
    /// The candidate's token, for `--accept`.
    pub token: Option<SyncToken>,
    pub guards: Vec<String>,
    /// Only the candidate's withdrawals wait; the additions are in force.
    pub additions_in_force: bool,
    /// The effect of the candidate, by group.
    pub changes: Vec<HeldChange>,
}

impl Hold {
    /// True if the hold ends without the operator. A token in the future would freeze the list:
    /// only the operator or a sane token ends such a hold.
    pub fn ends_by_itself(&self) -> bool {
        !self.guards.iter().any(|guard| guard == FUTURE_TOKEN)
    }

    /// True if both hold back the same selection for the same reasons.
    pub fn is_same(&self, other: &Hold) -> bool {
        self.digest == other.digest && self.guards == other.guards
    }

    /// The time at which the hold ends without the operator, in seconds since the epoch.
    pub fn ends(&self, config: &GuardConfig) -> i64 {
        later(self.since, config.accept_after)
    }
}

/// The reason for a prefix in hold-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The accepted document no longer lists the prefix.
    #[default]
    Withdrawn,
    /// The prefix was in our table when there was no last known good.
    FoundInKernel,
    /// The prefix was in our table when the last known good or the guard's state was unreadable;
    /// the operator has to decide.
    Unexplained,
}

/// A prefix that keeps its route although no document in force lists the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDown {
    pub prefix: IpNet,
    /// The group of the withdrawal; `None` for a prefix found only in the kernel.
    #[serde(default)]
    pub group: Option<Group>,
    /// In seconds since the epoch.
    pub since: i64,
    #[serde(default)]
    pub kept: Kept,
}

impl HoldDown {
    /// The time for which the route stays. An unexplained prefix stays at least as long as a
    /// document would wait for the operator.
    pub fn lasts(&self, config: &GuardConfig) -> Duration {
        match self.kept {
            Kept::Withdrawn => config.hold_down,
            Kept::FoundInKernel | Kept::Unexplained => config.hold_down.max(config.accept_after),
        }
    }

    /// The time at which the route goes, in seconds since the epoch.
    pub fn until(&self, config: &GuardConfig) -> i64 {
        later(self.since, self.lasts(config))
    }

    /// True if the config still selects the prefix's group: a change of the config is the
    /// operator's decision and applies without hold-down.
    pub fn is_wanted(&self, selector: &Selector) -> bool {
        match &self.group {
            Some(group) => selector.wants(group),
            None => selector
                .families
                .contains(&crate::types::Family::of_net(&self.prefix)),
        }
    }
}

/// A time plus a duration, in seconds since the epoch.
pub(super) fn later(seconds: i64, duration: Duration) -> i64 {
    seconds.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// The entries still valid at `now`, without addresses of `listed`.
pub(super) fn prune(
    entries: &[HoldDown],
    listed: &PrefixSet,
    config: &GuardConfig,
    now: i64,
) -> Vec<HoldDown> {
    entries
        .iter()
        .map(|entry| HoldDown {
            // Setting the clock back must not lengthen the hold-down, even without an anchor.
            since: entry.since.min(now),
            ..entry.clone()
        })
        .filter(|entry| now < entry.until(config))
        .flat_map(|entry| {
            let left: PrefixSet = std::iter::once(&entry.prefix).collect();
            let left = left.subtract(listed).all_prefixes();
            left.into_iter().map(move |prefix| HoldDown {
                prefix,
                ..entry.clone()
            })
        })
        .collect()
}

/// SHA-256 of a selection, in hex.
pub(super) fn digest(selection: &Selection) -> String {
    let mut hash = Sha256::new();
    for (group, prefix) in selection.prefixes() {
        hash.update(format!("{group} {prefix}\n"));
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
