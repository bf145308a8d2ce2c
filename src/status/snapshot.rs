//! The agent's account of itself: one value, from which the control socket, the metrics and the
//! health answers are all made. JSON fields are only ever added to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Role;
pub use crate::firewall::{PathTraffic, Traffic};
use crate::types::{Family, PerFamily, SyncToken};

/// What the agent is doing about its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is in force yet.
    #[default]
    Starting,
    /// The last pass ended as promised; nothing has changed since, as far as is known.
    InForce,
    /// The last pass failed, or an object is fought over: what is in force may not be all.
    Degraded,
    /// `flush` has taken everything away; a kick or a restart puts it back.
    Paused,
    /// On its way out.
    Stopping,
}

words!(State {
    Starting => "starting",
    InForce => "in_force",
    Degraded => "degraded",
    Paused => "paused",
    Stopping => "stopping",
});

/// How old the document's last confirmation is, against `[agent] stale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Younger than `warn`.
    #[default]
    Fresh,
    /// Older than `warn`.
    Warn,
    /// Older than `alarm`.
    Alarm,
}

words!(Freshness { Fresh => "fresh", Warn => "warn", Alarm => "alarm" });

/// The document in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentStatus {
    /// Its sync token.
    pub sync_token: SyncToken,
    /// Its date, as AWS writes it.
    pub create_date: String,
    /// Seconds since a source last said that this is the newest document.
    pub age_s: u64,
    /// That age against `[agent] stale`.
    pub freshness: Freshness,
}

/// The circuit breaker round the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The source is asked at each refresh.
    #[default]
    Closed,
    /// It failed repeatedly: it is left alone for a while.
    Open,
    /// One trial is under way.
    HalfOpen,
}

words!(BreakerState { Closed => "closed", Open => "open", HalfOpen => "half_open" });

/// The source of the document.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Seconds until it is asked next; 0 while it is being asked.
    pub next_fetch_in_s: u64,
    /// The circuit breaker.
    pub breaker: BreakerState,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// The last failure, while there was no success since.
    pub last_error: Option<String>,
    /// Fetches since the start by what came of them: `changed`, `unchanged`, `rejected` (it
    /// answered with something that was no acceptable document), `held` (the guard holds what it
    /// answered), `failed` (it didn't answer).
    pub fetches: BTreeMap<String, u64>,
    /// How long fetches took, in seconds.
    pub latency: Histogram,
}

/// A candidate document that waits, or whose withdrawals wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HoldStatus {
    /// Names of the guards that hold it.
    pub guards: Vec<String>,
    /// The candidate's token, for `--accept`.
    pub sync_token: Option<SyncToken>,
    /// Since when, in seconds since the epoch.
    pub since: i64,
    /// When it goes in by itself, if every fetch says the same until then; seconds since the epoch.
    pub until: i64,
}

/// A withdrawn prefix that keeps its route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDownStatus {
    /// The prefix.
    pub prefix: ipnet::IpNet,
    /// When its route goes, in seconds since the epoch.
    pub until: i64,
}

/// Prefixes of one (service, region, family).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCount {
    /// The service.
    pub service: String,
    /// The region.
    pub region: String,
    /// The family.
    pub family: Family,
    /// How many prefixes of it are in force, before aggregation.
    pub prefixes: usize,
}

/// An object that another program keeps changing back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConflictStatus {
    /// The object in words: `route 3.5.0.0/19 in table 1083`.
    pub object: String,
    /// Who, as far as the kernel tells: a program's name, a route protocol, a netlink port.
    pub by: String,
    /// How often it was repaired since the start.
    pub repairs: u64,
    /// Seconds until the next repair.
    pub paused_for_s: u64,
}

/// What vanished or was changed by others, and was mended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DriftStatus {
    /// Mended objects since the start, by kind: `route`, `rule`, `nexthop`, `nat`, `sysctl`.
    pub mended: BTreeMap<String, u64>,
    /// When last, in seconds since the epoch.
    pub last_at: Option<i64>,
    /// What last, in words.
    pub last_what: Option<String>,
    /// Objects that are being fought over; at most 100 are listed.
    pub conflicts: Vec<ConflictStatus>,
    /// How many there are.
    #[serde(default)]
    pub conflicts_total: usize,
    /// How often the kernel dropped events (receive buffer overrun) and everything was re-read.
    pub overruns: u64,
}

/// One of the last passes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PassStatus {
    /// When it ended, in seconds since the epoch.
    pub at: i64,
    /// Why it ran.
    pub cause: String,
    /// `in_sync`, `changed`, `held`, `rolled_back`, `failed`.
    pub outcome: String,
    /// How many objects it changed.
    pub steps: usize,
    /// From start to end, in milliseconds.
    pub duration_ms: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Passes since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PassTotals {
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Their durations, in seconds.
    pub duration: Histogram,
}

/// A histogram with fixed bounds, cumulative as Prometheus wants it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bound in seconds, and how many observations were not above it.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all observations, in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

impl Histogram {
    /// An empty one. The bounds are sorted, in seconds.
    pub fn new(bounds: &[f64]) -> Self {
        Histogram {
            buckets: bounds.iter().map(|bound| (*bound, 0)).collect(),
            sum: 0.0,
            count: 0,
        }
    }

    /// Takes one more, in seconds.
    pub fn observe(&mut self, seconds: f64) {
        for (bound, count) in &mut self.buckets {
            if seconds <= *bound {
                *count += 1;
            }
        }
        self.sum += seconds;
        self.count += 1;
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What this machine is.
    pub role: Role,
    /// What it is doing.
    pub state: State,
    /// Why it is not in force, or what is wrong.
    pub reason: Option<String>,
    /// When it started, in seconds since the epoch.
    pub started_at: i64,
    /// Since when it has been in force without a break, in seconds since the epoch.
    pub in_force_since: Option<i64>,
    /// Seconds in force since the start: availability counts these.
    pub in_force_s: f64,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// The document in force; `None` while there never was one.
    pub document: Option<DocumentStatus>,
    /// Where it comes from.
    pub source: SourceStatus,
    /// The candidate that waits, if one does.
    pub hold: Option<HoldStatus>,
    /// Withdrawn prefixes that keep their route; at most 100 are listed.
    pub hold_down: Vec<HoldDownStatus>,
    /// How many there are.
    pub hold_down_total: usize,
    /// What is selected.
    pub selection: Vec<GroupCount>,
    /// Routes of the bypass table.
    pub routes: PerFamily<usize>,
    /// Drift.
    pub drift: DriftStatus,
    /// Traffic by path; `None` where it can't be read.
    pub traffic: Option<PathTraffic>,
    /// What the bypass traffic would have cost through the NAT, in dollars.
    pub saved_dollars: Option<f64>,
    /// The last passes, newest first, at most ten.
    pub passes: Vec<PassStatus>,
    /// All passes.
    pub pass_totals: PassTotals,
    /// Faults by whose they are: `ours` (a pass that failed, rolled back, or was stuck),
    /// `others` (a source, the metadata service, a program that fights us).
    pub faults: BTreeMap<String, u64>,
    /// The firewall in use: its name, then why it was chosen.
    pub firewall: Option<String>,
    /// Notes of the last pass.
    pub notes: Vec<String>,
}
