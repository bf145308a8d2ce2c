//! What the guard remembers between passes. Persisted as JSON in the state dir.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::anchor::{Anchor, RENEW_AFTER, ROUNDING};
use crate::config::GuardConfig;
use crate::ranges::{Group, PrefixSet, Selection, Selector};
use crate::types::SyncToken;

/// The guard's memory. Unknown fields are ignored and missing ones default, so that versions
/// before and after this one can read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardState {
    /// What the clocks showed when this was written; see [`GuardState::rebase`].
    pub clock: Option<Anchor>,
    /// The candidate that is being held, if one is.
    pub hold: Option<Hold>,
    /// Withdrawn prefixes that keep their route for a while.
    pub hold_down: Vec<HoldDown>,
}

impl GuardState {
    /// The stored memory as it reads now: every time moved as far as the wall clock was. Without
    /// an anchor, as versions before this one wrote it, the times stay.
    pub fn rebase(&self, now: &Anchor) -> GuardState {
        let (jump, clock) = match &self.clock {
            None => (0, now.clone()),
            Some(before) => match (now.jump_since(before), now.since(before)) {
                // The remainder stays in the anchor, so that many of them don't add up.
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

    /// Whether this remembers anything else than the stored memory does, the clocks aside.
    pub fn differs_from(&self, stored: &GuardState) -> bool {
        let as_now = match &self.clock {
            Some(now) => stored.rebase(now),
            None => stored.clone(),
        };
        self.hold != as_now.hold || self.hold_down != as_now.hold_down
    }

    /// Whether the stored memory must be written again although it says the same: clocks run in
    /// it, and a reboot would forget more of their time than [`RENEW_AFTER`].
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
    /// Since when every fetch has said this, in seconds since the epoch.
    pub since: i64,
    /// The last fetch that said it, in seconds since the epoch.
    pub last_seen: i64,
    /// SHA-256 of the candidate's selection. Not of the document: Amazon publishes several a
    /// day, and most say the same about what is selected.
    pub digest: String,
    /// The candidate's token, for `--accept`.
    pub token: Option<SyncToken>,
    /// Names of the guards that hold it.
    pub guards: Vec<String>,
    /// Only its withdrawals wait; what it adds is in force.
    pub additions_in_force: bool,
}

impl Hold {
    /// When it ends by itself, in seconds since the epoch.
    pub fn ends(&self, config: &GuardConfig) -> i64 {
        later(self.since, config.accept_after)
    }
}

/// Why a prefix is in hold-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// A document that was accepted no longer lists it.
    #[default]
    Withdrawn,
    /// It was in our table when there was no last known good.
    FoundInKernel,
    /// It was in our table when the last known good or this state was unreadable; the
    /// operator is asked.
    Unexplained,
}

/// A prefix that keeps its route although nothing lists it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDown {
    /// The prefix.
    pub prefix: IpNet,
    /// The group that it was withdrawn from; `None` where the kernel was the only witness.
    #[serde(default)]
    pub group: Option<Group>,
    /// Since when, in seconds since the epoch.
    pub since: i64,
    /// Why.
    #[serde(default)]
    pub kept: Kept,
}

impl HoldDown {
    /// How long it keeps its route. What nobody can explain stays until the operator has had
    /// the time that a hold would have given.
    pub fn lasts(&self, config: &GuardConfig) -> Duration {
        match self.kept {
            Kept::Withdrawn => config.hold_down,
            Kept::FoundInKernel | Kept::Unexplained => config.hold_down.max(config.accept_after),
        }
    }

    /// When its route goes, in seconds since the epoch.
    pub fn until(&self, config: &GuardConfig) -> i64 {
        later(self.since, self.lasts(config))
    }

    /// Whether the config still selects what it was part of: a change of the config is the
    /// operator's word and knows no hold-down.
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

/// Entries that still count at `now`, without the addresses that are listed again.
pub(super) fn prune(
    entries: &[HoldDown],
    listed: &PrefixSet,
    config: &GuardConfig,
    now: i64,
) -> Vec<HoldDown> {
    entries
        .iter()
        .map(|entry| HoldDown {
            // A clock that was set back must not lengthen it, not even where the state has no
            // anchor.
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
