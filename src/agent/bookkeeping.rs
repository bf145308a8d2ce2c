//! The agent's status, updated with each pass.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::shared::{Noticed, Shared, locked};
use super::worker::Ended;
use super::{FetchSchedule, Settings};
use crate::config::{AgentConfig, AnyRole, GuardConfig};
use crate::degraded::Part;
use crate::guard::GuardState;
use crate::reconcile::report::Applied;
use crate::reconcile::{Cause, FetchOutcome, Outcome, Report};
use crate::status::snapshot::{
    ConflictStatus, DocumentStatus, EgressAddressStatus, Freshness, Histogram, HoldDownStatus,
    HoldStatus, PassStatus, PassTotals, Snapshot, SourceStatus, State,
};
use crate::status::textfile::groups;
use crate::types::Family;

/// Histogram bounds of a pass in seconds: from reading an empty table to installing all of AWS's
/// prefixes on a busy machine.
const PASS_BOUNDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Histogram bounds of a fetch in seconds: from a file to three attempts with the default timeout.
const FETCH_BOUNDS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Passes and hold-downs in the status.
const LISTED_PASSES: usize = 10;
const LISTED_HOLD_DOWNS: usize = 100;
/// Conflicts in the status: a program that keeps flushing a whole table makes thousands.
const LISTED_CONFLICTS: usize = 100;

/// The agent's status, as the control socket and the metrics show it.
pub(super) struct Account {
    pub(super) snapshot: Snapshot,
    started: Instant,
    in_force_from: Option<Instant>,
    in_force_before: Duration,
    /// Time of a source's last confirmation of the document in force before this process started,
    /// in seconds since the epoch. `confirmed` is the time in this process, on a monotonic clock.
    confirmed_before: Option<u64>,
    confirmed: Option<Instant>,
    pub(super) document: Option<(crate::types::SyncToken, String)>,
    /// The start of the time in force before this process started, until something was missing.
    pub(super) earlier_since: Option<i64>,
}

pub(super) fn now_s() -> i64 {
    Timestamp::now().as_second()
}

pub(super) fn count(counts: &mut BTreeMap<String, u64>, what: &str) {
    *counts.entry(what.to_owned()).or_default() += 1;
}

impl Account {
    /// The status before the first pass.
    pub fn new(
        role: impl Into<AnyRole>,
        confirmed_before: Option<u64>,
        earlier_since: Option<i64>,
    ) -> Self {
        let faults = ["ours", "others"].map(|whose| (whose.to_owned(), 0));
        Account {
            snapshot: Snapshot {
                source: SourceStatus {
                    latency: Histogram::new(&FETCH_BOUNDS),
                    ..SourceStatus::default()
                },
                pass_totals: PassTotals {
                    duration: Histogram::new(&PASS_BOUNDS),
                    ..PassTotals::default()
                },
                faults: BTreeMap::from(faults),
                ..Snapshot::starting(role, now_s())
            },
            started: Instant::now(),
            in_force_from: None,
            in_force_before: Duration::ZERO,
            confirmed_before,
            confirmed: None,
            document: None,
            earlier_since,
        }
    }

    /// The start of the unbroken time in force, in seconds since the epoch.
    pub fn in_force_since(&self) -> Option<i64> {
        self.snapshot.in_force_since
    }

    /// The current state.
    pub fn state(&self) -> State {
        self.snapshot.state
    }

    /// The reason of a state other than in force.
    pub fn reason(&self) -> Option<&str> {
        self.snapshot.reason.as_deref()
    }

    /// True if the last pass left out this part.
    pub fn lacks(&self, part: Part, family: Option<Family>) -> bool {
        let mut missing = self.snapshot.degraded.iter();
        missing.any(|missing| missing.part == part && missing.family == family)
    }

    /// Enters a state and adds up the time in force.
    pub fn enter(&mut self, state: State, reason: Option<String>) {
        let now = Instant::now();
        match (state == State::InForce, self.in_force_from) {
            (true, None) => {
                self.in_force_from = Some(now);
                // Before this process somebody may have changed an object and changed it back: no
                // program knows.
                let since = self.earlier_since.take().unwrap_or_else(now_s);
                self.snapshot.in_force_since = Some(since);
            }
            (false, Some(from)) => {
                self.in_force_before += now.duration_since(from);
                self.in_force_from = None;
                self.snapshot.in_force_since = None;
            }
            _ => {}
        }
        if !matches!(state, State::Starting | State::InForce) {
            self.earlier_since = None;
        }
        self.snapshot.state = state;
        self.snapshot.reason = reason;
    }

    /// Counts the watcher's repairs.
    pub fn noticed(&mut self, noticed: &Noticed) {
        if !noticed.by_kind.is_empty() {
            self.earlier_since = None;
        }
        self.snapshot.drift.overruns += noticed.lost;
        let last = noticed.steps.last().map(ToString::to_string);
        for (kind, steps) in &noticed.by_kind {
            self.mended(kind, *steps, last.clone());
        }
    }

    pub(super) fn mended(&mut self, kind: &str, steps: u64, what: Option<String>) {
        let drift = &mut self.snapshot.drift;
        *drift.mended.entry(kind.to_owned()).or_default() += steps;
        drift.last_at = Some(now_s());
        drift.last_what = what.or(drift.last_what.take());
    }

    /// Records outcome and duration of a pass with this number of steps.
    pub(super) fn record_pass(
        &mut self,
        cause: Cause,
        (outcome, steps): (Outcome, usize),
        error: &Option<String>,
        took: Duration,
    ) {
        let outcome = outcome.as_str();
        let totals = &mut self.snapshot.pass_totals;
        count(&mut totals.outcomes, outcome);
        totals.duration.observe(took.as_secs_f64());
        let passes = &mut self.snapshot.passes;
        passes.insert(
            0,
            PassStatus {
                at: now_s(),
                cause: cause.to_string(),
                outcome: outcome.to_owned(),
                steps,
                duration_ms: took.as_secs_f64() * 1e3,
                error: error.clone(),
            },
        );
        passes.truncate(LISTED_PASSES);
        if steps > 0 {
            self.earlier_since = None;
        }
    }

    /// Records a pass.
    pub fn passed(&mut self, ended: &Ended) {
        let report = &ended.report;
        let took = ended.ended.duration_since(ended.started);
        let steps = report.plan.steps.len();
        self.record_pass(ended.cause, (report.outcome, steps), &report.error, took);
        if ended.drift && report.applied == Applied::All {
            for step in &report.plan.steps {
                let what = step.to_string();
                self.mended(step.object(), 1, Some(what));
            }
        }
        match report.outcome {
            Outcome::Failed if !report.plan.conflicts.is_empty() => {
                count(&mut self.snapshot.faults, "others");
            }
            Outcome::Failed | Outcome::RolledBack if !report.without_document => {
                count(&mut self.snapshot.faults, "ours");
            }
            _ => {}
        }
        self.snapshot.degraded.clone_from(&report.degraded);
        let conflicts = report.plan.conflicts.iter();
        self.snapshot.conflicts = conflicts.map(|conflict| conflict.message.clone()).collect();
        self.snapshot.notes = report.notes.texts().map(str::to_owned).collect();
        self.snapshot.firewall = report
            .backend
            .as_ref()
            .map(|backend| format!("{} ({})", backend.kind, backend.reason))
            .or(self.snapshot.firewall.take());
        if let Some(in_force) = &ended.in_force {
            self.snapshot.routes = in_force.bypass_routes();
        }
        self.judged(report);
    }

    fn judged(&mut self, report: &Report) {
        if !report.was_judged() {
            return;
        }
        self.document = report
            .sync_token
            .map(|token| (token, report.create_date.clone()));
        self.snapshot.selection = groups(report);
        self.snapshot.hold_down_total = report.guard_state.hold_down.len();
    }

    /// Records holds and hold-downs, with end times from the settings.
    pub fn guarded(&mut self, state: &GuardState, guard: &GuardConfig) {
        let hold = state.hold.as_ref();
        self.snapshot.hold = hold.map(|hold| HoldStatus::of(hold, guard));
        self.snapshot.hold_down = state
            .hold_down
            .iter()
            .take(LISTED_HOLD_DOWNS)
            .map(|entry| HoldDownStatus {
                prefix: entry.prefix,
                until: entry.until(guard),
            })
            .collect();
    }

    /// Records a fetch.
    pub fn fetched(&mut self, fetch: &FetchOutcome, took: Duration) {
        let source = &mut self.snapshot.source;
        let (name, error) = match fetch {
            FetchOutcome::NotAsked => return,
            FetchOutcome::Unchanged => ("unchanged", None),
            FetchOutcome::Changed => ("changed", None),
            FetchOutcome::Held => ("held", None),
            FetchOutcome::Rejected(why) => ("rejected", Some(why.clone())),
            FetchOutcome::Failed(why) => ("failed", Some(why.clone())),
        };
        count(&mut source.fetches, name);
        source.latency.observe(took.as_secs_f64());
        if error.is_some() {
            count(&mut self.snapshot.faults, "others");
        }
        source.last_error = error;
        if matches!(fetch, FetchOutcome::Unchanged | FetchOutcome::Changed) {
            self.confirmed = Some(Instant::now());
        }
    }

    /// Records the egress addresses.
    pub fn addressed(&mut self, addresses: Vec<EgressAddressStatus>) {
        self.snapshot.egress_addresses = addresses;
    }

    /// Counts an object that another program keeps changing.
    pub fn fought(&mut self) {
        count(&mut self.snapshot.faults, "others");
    }

    /// Seconds since a source's last confirmation of the document in force.
    pub fn document_age(&self) -> Option<u64> {
        self.document.as_ref()?;
        if let Some(confirmed) = self.confirmed {
            return Some(confirmed.elapsed().as_secs());
        }
        let now = u64::try_from(now_s()).unwrap_or(0);
        Some(now.saturating_sub(self.confirmed_before.unwrap_or(0)))
    }

    /// The document's age in comparison with the thresholds of the settings.
    pub fn freshness(&self, config: &AgentConfig) -> Freshness {
        let age = self.document_age();
        age.map_or(Freshness::Fresh, |age| Freshness::of(age, config))
    }

    /// The present status.
    pub fn snapshot(
        &self,
        settings: &Settings,
        schedule: &FetchSchedule,
        fetching: bool,
        shared: &Shared,
    ) -> Snapshot {
        let config = &settings.config.agent;
        let mut snapshot = self.timed(config, schedule, fetching);
        snapshot.role = settings.role.into();
        let now = Instant::now();
        (snapshot.drift.conflicts, snapshot.drift.conflicts_total) = conflicts(shared, now);
        snapshot
    }

    /// The status with its clocks read, without the conflicts.
    pub fn timed(
        &self,
        config: &AgentConfig,
        schedule: &FetchSchedule,
        fetching: bool,
    ) -> Snapshot {
        let now = Instant::now();
        let mut snapshot = self.snapshot.clone();
        let running = self.in_force_from.map(|from| now.duration_since(from));
        let in_force = self.in_force_before + running.unwrap_or_default();
        snapshot.in_force_s = in_force.as_secs_f64();
        snapshot.uptime_s = now.duration_since(self.started).as_secs_f64();
        snapshot.document = match (&self.document, self.document_age()) {
            (Some((sync_token, create_date)), Some(age_s)) => Some(DocumentStatus {
                sync_token: *sync_token,
                create_date: create_date.clone(),
                age_s,
                freshness: self.freshness(config),
            }),
            _ => None,
        };
        snapshot.source.breaker = schedule.breaker();
        snapshot.source.failures_in_a_row = schedule.failures_in_a_row();
        snapshot.source.next_fetch_in_s = if fetching {
            0
        } else {
            schedule.due().saturating_duration_since(now).as_secs()
        };
        snapshot
    }
}

/// The conflicts, at most [`LISTED_CONFLICTS`] of them, and their number: first the objects that are
/// repaired without a pause.
fn conflicts(shared: &Shared, now: Instant) -> (Vec<ConflictStatus>, usize) {
    let limiter = locked(&shared.limiter);
    let log = locked(&shared.repair_log);
    let egress = log.fought().map(|(key, repairs)| (key, 0, repairs));
    let paused = limiter.paused(now);
    let all: Vec<_> = egress
        .chain(paused.map(|(key, left, repairs)| (key, left.as_secs(), repairs)))
        .collect();
    let listed = all.iter().take(LISTED_CONFLICTS);
    let listed = listed.map(|(key, paused_for_s, repairs)| ConflictStatus {
        object: key.to_string(),
        by: shared.culprit(key),
        repairs: *repairs,
        paused_for_s: *paused_for_s,
    });
    (listed.collect(), all.len())
}
