//! A held document, for the status with and without an agent.

use super::snapshot::{HeldChangeStatus, HoldStatus};
use crate::config::GuardConfig;
use crate::guard::{Hold, Share};

impl HoldStatus {
    /// The status of a hold, with its end by the settings.
    pub fn of(hold: &Hold, config: &GuardConfig) -> HoldStatus {
        let percent = |share: &Share| share.per_mille as f64 / 10.0;
        let changes = hold.changes.iter().map(|change| HeldChangeStatus {
            service: change.group.service.to_string(),
            region: change.group.region.to_string(),
            family: change.group.family,
            lost_percent: percent(&change.lost),
            lost_prefixes: change.lost.prefixes,
            lost: change.lost.first.clone(),
            gained_percent: percent(&change.gained),
            gained_prefixes: change.gained.prefixes,
            gained: change.gained.first.clone(),
        });
        HoldStatus {
            guards: hold.guards.clone(),
            sync_token: hold.token,
            since: hold.since,
            until: hold.ends(config),
            ends_by_itself: hold.ends_by_itself(),
            changes: changes.collect(),
        }
    }
}
