//! The status before the first pass.

use std::collections::BTreeMap;

use super::snapshot::{DriftStatus, Freshness, PassTotals, Snapshot, SourceStatus, State};
use crate::config::{AgentConfig, AnyRole};
use crate::types::PerFamily;

impl Snapshot {
    /// A status without any pass. `now` is in seconds since the epoch.
    pub fn starting(role: impl Into<AnyRole>, now: i64) -> Snapshot {
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            role: role.into(),
            state: State::Starting,
            reason: Some("the first pass has not ended yet".to_owned()),
            degraded: Vec::new(),
            conflicts: Vec::new(),
            started_at: now,
            in_force_since: None,
            in_force_s: 0.0,
            uptime_s: 0.0,
            config: None,
            document: None,
            source: SourceStatus::default(),
            hold: None,
            hold_down: Vec::new(),
            hold_down_total: 0,
            selection: Vec::new(),
            routes: PerFamily::default(),
            gateways: Vec::new(),
            egress_addresses: Vec::new(),
            drift: DriftStatus::default(),
            traffic: None,
            bypass_percent: None,
            conntrack: None,
            pinned: None,
            saved_dollars: None,
            passes: Vec::new(),
            pass_totals: PassTotals::default(),
            faults: BTreeMap::new(),
            firewall: None,
            notes: Vec::new(),
            vpc: None,
        }
    }
}

impl Freshness {
    /// The level of an age in seconds.
    pub fn of(age: u64, config: &AgentConfig) -> Freshness {
        if age > config.stale_alarm.as_secs() {
            Freshness::Alarm
        } else if age > config.stale_warn.as_secs() {
            Freshness::Warn
        } else {
            Freshness::Fresh
        }
    }
}
