//! The agent's status: one value behind the control socket, the metrics and the health answers.
//! JSON fields may be added, never changed or removed.

mod flows;
mod hops;
mod vpc;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::AnyRole;
use crate::degraded::Degradation;
pub use crate::firewall::{PathTraffic, Traffic};
use crate::types::{Family, PerFamily, SyncToken};
pub use flows::{ConntrackStatus, FlowCount, PathCounts, PinnedStatus, PortUseStatus};
pub use hops::{
    DrainStatus, EgressAddressStatus, EndedStatus, GatewayStatus, HealthStatus, QualityStatus,
    TrafficStatus,
};
pub use vpc::{RequestsStatus, VpcStatus};

/// The agent's state. Only [`State::InForce`] promises the paths of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No pass has succeeded since the start.
    #[default]
    Starting,
    /// The last pass succeeded, and no change has been seen since.
    InForce,
    /// The last pass failed, a part is missing, or another program keeps changing an object.
    Degraded,
    /// After `flush`; a kick or a restart restores everything.
    Paused,
    Stopping,
}

words!(State {
    Starting => "starting",
    InForce => "in_force",
    Degraded => "degraded",
    Paused => "paused",
    Stopping => "stopping",
});

/// The settings in force, and the config file on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The absolute path.
    pub file: String,
    /// SHA-256 of the content in force; `None` if the file didn't exist and the defaults are in
    /// force.
    pub digest: Option<String>,
    /// Time of reading, in seconds since the epoch.
    pub loaded_at: i64,
    /// True if the file on disk has another content; `None` if the file is unreadable.
    pub differs: Option<bool>,
    /// The refusal of the newest reload, until a reload succeeds.
    pub refused: Option<RefusedReload>,
}

/// New settings that the agent refused: the earlier settings stay in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RefusedReload {
    /// The line of the first mistake; `None` if the text is sound and does not fit this host.
    pub line: Option<usize>,
    /// One line, without file and line number.
    pub reason: String,
    /// The first refused reload since the last success, in seconds since the epoch.
    pub since: i64,
    /// The last refused reload, in seconds since the epoch.
    pub last_at: i64,
    /// Refused reloads since the last success.
    pub attempts: u64,
}

/// The age of the document's last confirmation, against `[agent] stale`.
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
    pub sync_token: SyncToken,
    /// The document's date in AWS's own format.
    pub create_date: String,
    /// Seconds since a source last confirmed the document as the newest.
    pub age_s: u64,
    pub freshness: Freshness,
}

/// The circuit breaker of the fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The agent fetches at each refresh.
    #[default]
    Closed,
    /// After repeated failures: no fetch for a while.
    Open,
    /// One trial fetch is running.
    HalfOpen,
}

words!(BreakerState { Closed => "closed", Open => "open", HalfOpen => "half_open" });

/// The source of the document.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Seconds until the next fetch; 0 during a fetch.
    pub next_fetch_in_s: u64,
    pub breaker: BreakerState,
    pub failures_in_a_row: u32,
    /// The last failure, until the next success.
    pub last_error: Option<String>,
    /// Fetches since the start by result: `changed`, `unchanged`, `rejected` (the response is not
    /// an acceptable document), `held` (the guard holds the document), `failed` (no response).
    pub fetches: BTreeMap<String, u64>,
    /// Durations of the fetches, in seconds.
    pub latency: Histogram,
}

/// A document that the guard holds back, as a whole or only its withdrawals.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HoldStatus {
    /// Names of the guards behind the hold.
    pub guards: Vec<String>,
    /// The document's token, for `--accept`.
    pub sync_token: Option<SyncToken>,
    /// Start, in seconds since the epoch.
    pub since: i64,
    /// End without an operator, if every fetch brings the same document until then; in seconds
    /// since the epoch.
    pub until: i64,
    /// False for a hold that only the operator or another document ends.
    #[serde(default = "yes")]
    pub ends_by_itself: bool,
    /// The effect of the document, by group.
    #[serde(default)]
    pub changes: Vec<HeldChangeStatus>,
}

/// Holds of agents of earlier versions end by themselves.
fn yes() -> bool {
    true
}

/// The change of one (service, region, family) if the held document were accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldChangeStatus {
    pub service: String,
    pub region: String,
    pub family: Family,
    /// Share of the addresses in force that the document lacks.
    pub lost_percent: f64,
    /// The number of prefixes with these addresses.
    pub lost_prefixes: usize,
    /// The first five.
    pub lost: Vec<ipnet::IpNet>,
    /// New addresses in relation to those in force; 0 if the additions are in force already.
    pub gained_percent: f64,
    pub gained_prefixes: usize,
    pub gained: Vec<ipnet::IpNet>,
}

/// A withdrawn prefix whose route stays for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDownStatus {
    pub prefix: ipnet::IpNet,
    /// Removal of the route, in seconds since the epoch.
    pub until: i64,
}

/// The number of prefixes of one (service, region, family).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCount {
    pub service: String,
    pub region: String,
    pub family: Family,
    /// Prefixes in force, before aggregation.
    pub prefixes: usize,
}

/// An object that another program keeps changing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConflictStatus {
    /// For people: `route 3.5.0.0/19 in table 1083`.
    pub object: String,
    /// The other program, as far as the kernel reports: a name, a route protocol, a netlink port.
    pub by: String,
    pub repairs: u64,
    /// Seconds until the next repair.
    pub paused_for_s: u64,
}

/// Drift: objects of ours that other programs deleted or changed, and that the agent repaired.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DriftStatus {
    /// Repaired objects since the start, by kind: `route`, `rule`, `nexthop`, `nat`, `sysctl`.
    pub mended: BTreeMap<String, u64>,
    /// The last repair, in seconds since the epoch.
    pub last_at: Option<i64>,
    /// The last repaired object, for people.
    pub last_what: Option<String>,
    /// At most 100 of the objects in conflict.
    pub conflicts: Vec<ConflictStatus>,
    #[serde(default)]
    pub conflicts_total: usize,
    /// Overruns of the receive buffer for kernel events, each followed by a full read.
    pub overruns: u64,
}

/// One of the last passes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PassStatus {
    /// End, in seconds since the epoch.
    pub at: i64,
    pub cause: String,
    /// `in_sync`, `changed`, `held`, `waiting`, `rolled_back`, `failed`.
    pub outcome: String,
    /// Changed objects.
    pub steps: usize,
    pub duration_ms: f64,
    pub error: Option<String>,
}

/// Passes since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PassTotals {
    pub outcomes: BTreeMap<String, u64>,
    /// In seconds.
    pub duration: Histogram,
}

/// A histogram with fixed bounds, cumulative as in Prometheus.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// An upper bound in seconds, and the number of observations up to this bound.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all observations, in seconds.
    pub sum: f64,
    pub count: u64,
}

impl Histogram {
    /// An empty histogram. The bounds are sorted, in seconds.
    pub fn new(bounds: &[f64]) -> Self {
        Histogram {
            buckets: bounds.iter().map(|bound| (*bound, 0)).collect(),
            sum: 0.0,
            count: 0,
        }
    }

    /// Adds an observation, in seconds.
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

/// The agent's status at one moment, made by the agent's loop. Times are seconds since the epoch,
/// fields ending in `_s` are seconds, and totals count since the agent's start.
///
/// Invariant: the snapshot alone decides every answer. The control socket, `/metrics`, `/readyz`
/// and `trailblazer status` read nothing else, so no two of them contradict each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub pid: u32,
    pub role: AnyRole,
    pub state: State,
    /// The cause of any state but `InForce`.
    pub reason: Option<String>,
    /// The missing parts as of the last pass, the most important part first.
    #[serde(default)]
    pub degraded: Vec<Degradation>,
    /// Foreign objects in the place of ours, as of the last pass.
    #[serde(default)]
    pub conflicts: Vec<String>,
    pub started_at: i64,
    /// Start of the current, unbroken time in force.
    pub in_force_since: Option<i64>,
    /// Total time in force; the share of `uptime_s` is the availability.
    pub in_force_s: f64,
    pub uptime_s: f64,
    /// `None` from an agent of an earlier version.
    #[serde(default)]
    pub config: Option<ConfigStatus>,
    /// `None` until there is a document.
    pub document: Option<DocumentStatus>,
    pub source: SourceStatus,
    pub hold: Option<HoldStatus>,
    /// At most 100 of the withdrawn prefixes whose routes stay.
    pub hold_down: Vec<HoldDownStatus>,
    /// The number of all such prefixes.
    pub hold_down_total: usize,
    pub selection: Vec<GroupCount>,
    pub routes: PerFamily<usize>,
    /// As of the last pass, with the present neighbours.
    #[serde(default)]
    pub gateways: Vec<GatewayStatus>,
    /// NAT role only, as of the last pass.
    #[serde(default)]
    pub egress_addresses: Vec<EgressAddressStatus>,
    pub drift: DriftStatus,
    /// `None` where counting is impossible.
    pub traffic: Option<PathTraffic>,
    /// The share of the bypass in all bytes; `None` without bytes or where counting is impossible.
    #[serde(default)]
    pub bypass_percent: Option<f64>,
    /// `None` before the first reading, and where the kernel refuses.
    #[serde(default)]
    pub conntrack: Option<ConntrackStatus>,
    /// `None` before the first count, without pins, and where the kernel refuses.
    #[serde(default)]
    pub pinned: Option<PinnedStatus>,
    /// The cost of the bypass traffic had it passed the NAT, in dollars.
    pub saved_dollars: Option<f64>,
    /// The last passes, newest first, at most ten.
    pub passes: Vec<PassStatus>,
    pub pass_totals: PassTotals,
    /// Faults by origin: `ours` (a pass failed, was rolled back, or hung), `others` (a source, the
    /// metadata service, a program that undoes repairs).
    pub faults: BTreeMap<String, u64>,
    /// The firewall in use: its name, then the reason of the choice.
    pub firewall: Option<String>,
    pub notes: Vec<String>,
    /// vpc role only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<VpcStatus>,
}
