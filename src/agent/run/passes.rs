//! Passes and fetches: what starts them, and what comes of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::shared::locked;
use super::super::worker::{Ended, Order};
use super::super::{AgentError, Settings, logging};
use super::{Agent, Fetched, Running};
use crate::plan::{ObjectKey, Step};
use crate::random;
use crate::reconcile::report::Applied;
use crate::reconcile::{Cause, FetchOutcome, Gathered, Mode, Options, Watched, gather};
use crate::status::snapshot::State;

/// A pass that failed is tried again after this, doubling.
const RETRY: Duration = Duration::from_secs(1);
/// But no later than this: an operator who has mended the cause shall not wait for long.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// iptables-legacy tells nobody of its changes: it is looked at this often.
const LEGACY_CHECK: Duration = Duration::from_secs(60);
/// A pass this long after a change of a link still mends what went with it.
const LINK_SETTLES: Duration = Duration::from_secs(2);
/// Steps that were put back and wait for the journal.
const KEPT_STEPS: usize = crate::journal::MAX_LISTED;

impl<R: Fn() -> Result<Settings, String>> Agent<R> {
    pub(super) fn start_pass(&mut self, cause: Cause, now: Instant) {
        self.causes.clear();
        let limiter = locked(&self.shared.limiter);
        let watched = Watched {
            paused: limiter.exhausted(now).cloned().collect(),
            contested: limiter.fought(now).cloned().collect(),
            repaired: std::mem::take(&mut self.mended),
            // Added by the worker.
            earlier: None,
        };
        drop(limiter);
        let options = Options {
            cause,
            watched: Some(watched),
            ..Options::default()
        };
        let (gathered, took) = match self.gathered.take() {
            Some((gathered, took)) => (gathered, Some(took)),
            None => (Gathered::default(), None),
        };
        self.send(options, gathered, took, None, now);
    }

    pub(super) fn start_probe(&mut self, settings: Settings, now: Instant) {
        let options = Options {
            cause: Cause::Reload,
            mode: Mode::DryRun,
            ..Options::default()
        };
        self.send(options, Gathered::default(), None, Some(settings), now);
    }

    pub(super) fn send(
        &mut self,
        options: Options,
        gathered: Gathered,
        fetch_took: Option<Duration>,
        probe: Option<Settings>,
        now: Instant,
    ) {
        let settings = probe.as_ref().unwrap_or(&self.settings);
        let order = Order {
            config: Arc::clone(&settings.config),
            role: settings.role,
            options,
            gathered,
        };
        if self.orders.send(order).is_err() {
            tracing::error!("the worker has ended: no pass can run; restart the agent");
            return;
        }
        self.running = Some(Running {
            since: now,
            fetch_took,
            probe,
        });
    }

    pub(super) fn start_fetch(&mut self, now: Instant) {
        self.schedule.started(now);
        let (config, role) = (Arc::clone(&self.settings.config), self.settings.role);
        let asker = self.asker.clone();
        let (own, to_loop) = (self.own_addresses.clone(), self.fetched_to.clone());
        let task = tokio::spawn(async move {
            let gathered = gather(&config, role, &Options::default(), &asker, &own).await;
            let (by, took) = (tokio::task::id(), now.elapsed());
            // The loop has ended: nobody asks any more.
            let _ = to_loop.send(Fetched { by, gathered, took });
        });
        self.fetching = Some(task.abort_handle());
    }

    /// Other settings are in force, or a pause begins: what the source says to this question is
    /// of no interest any more.
    pub(super) fn give_up_fetch(&mut self, now: Instant) {
        let running = self.fetching.take();
        if let Some(task) = &running {
            task.abort();
        }
        if running.is_some() | self.gathered.take().is_some() {
            self.schedule.given_up(now);
        }
    }

    pub(super) fn fetch_ended(&mut self, over: Fetched) {
        // One that was given up may have been over already.
        if self
            .fetching
            .as_ref()
            .is_none_or(|task| task.id() != over.by)
        {
            return;
        }
        self.fetching = None;
        self.gathered = Some((over.gathered, over.took));
        self.cause(Cause::Document);
    }

    pub(super) fn cause(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    /// The kernel has told something.
    pub(super) fn noticed(&mut self) -> Result<(), AgentError> {
        let noticed = std::mem::take(&mut *locked(&self.shared.noticed));
        if let Some(why) = noticed.deaf {
            return Err(AgentError::Deaf(why));
        }
        self.account.noticed(&noticed);
        if let Some(at) = noticed.mended_at {
            self.debounce.mended(at);
        }
        if let Some(at) = noticed.event {
            self.debounce.event(at);
        }
        self.link_changed = noticed.link_changed.or(self.link_changed);
        if noticed.way_changed && self.schedule.failures_in_a_row() > 0 {
            self.schedule.bring_forward(Instant::now());
        }
        self.fought(&noticed.refused);
        let room = KEPT_STEPS.saturating_sub(self.mended.len());
        self.mended.extend(noticed.steps.into_iter().take(room));
        self.told.put_back += noticed.steps_total;
        for cause in noticed.causes {
            if self.heard.len() < 8 && !self.heard.contains(&cause) {
                self.heard.push(cause);
            }
        }
        Ok(())
    }

    /// Objects were put back too often, and their pauses begin. Each is told of once, until its
    /// conflict is over.
    pub(super) fn fought(&mut self, keys: &[ObjectKey]) {
        let new: Vec<(&ObjectKey, String)> = keys
            .iter()
            .filter(|key| self.told.conflicts.insert((*key).clone()))
            .map(|key| (key, self.shared.culprit(key)))
            .collect();
        if !new.is_empty() {
            logging::conflicts(&new);
            self.account.fought();
        }
        if let Some(key) = keys.first()
            && self.account.state() == State::InForce
        {
            let culprit = self.shared.culprit(key);
            let reason = format!("{key} is changed again and again by {culprit}");
            self.account.enter(State::Degraded, Some(reason));
        }
    }

    pub(super) fn pass_ended(&mut self, ended: Ended) {
        let Some(running) = self.running.take() else {
            return;
        };
        if let Some(settings) = running.probe {
            return self.probed(settings, &ended);
        }
        let report = &ended.report;
        self.debounce.passed(ended.started, ended.ended);
        self.resync_at = ended.ended + self.resync_interval(report.backend.as_ref());
        self.count_repairs(&ended);
        self.account.passed(&ended);
        self.account.guarded(report, &self.settings);
        if let Some(took) = running.fetch_took {
            self.judge_fetch(&report.fetch, took, ended.ended);
        }
        if let Some(in_force) = &ended.in_force {
            self.own_addresses = in_force.facts.own_addresses();
        }
        if let Some(backend) = &report.backend {
            self.meter.use_backend(backend.kind);
            // Each pass reads: what somebody flushes next has been counted until then.
            self.meter.read();
        }
        match report.error {
            None => (self.failures, self.retry_at) = (0, None),
            // Another document is another fetch's to bring.
            Some(_) if report.without_document => self.retry_at = None,
            Some(_) => {
                let pause = RETRY.saturating_mul(2u32.saturating_pow(self.failures.min(6)));
                self.failures += 1;
                self.retry_at = Some(ended.ended + pause.min(LONGEST_RETRY));
            }
        }
        self.enter_state(&ended);
        self.told.pass(&ended, std::mem::take(&mut self.heard));
        self.told.age(&self.account, &self.settings);
        self.first_pass_over = true;
        let ready = self.account.state() == State::InForce || self.first_fetch_over;
        if std::mem::take(&mut self.reloading) || (ready && !self.notifier.is_ready()) {
            self.notifier.ready();
        }
        let status = logging::status_line(&ended.report, &self.account);
        self.notifier.status(status);
    }

    /// Repairs by a pass count as the watcher's do; what was left alone begins its pause.
    pub(super) fn count_repairs(&mut self, ended: &Ended) {
        let report = &ended.report;
        let mut begins = Vec::new();
        // What goes with a link, the kernel takes: nobody fights us.
        let with_link = self
            .link_changed
            .is_some_and(|at| ended.started < at + LINK_SETTLES);
        let goes_with_link = |key: &ObjectKey| matches!(key, ObjectKey::Route(_));
        {
            let mut limiter = locked(&self.shared.limiter);
            limiter.passed(ended.started);
            let changed = ended.drift && report.applied == Applied::All;
            // Once a pass, however many attempts it took.
            let keys: BTreeSet<ObjectKey> = report.plan.steps.iter().map(Step::key).collect();
            for key in &keys {
                if changed && !(with_link && goes_with_link(key)) {
                    limiter.allow(key, ended.ended);
                }
            }
            for key in &report.fought {
                let known = limiter.is_paused(key, ended.started);
                if keys.contains(key) {
                    // Undone at once, and in need of the next repair: after a longer pause.
                    limiter.allow(key, ended.ended);
                }
                limiter.left_alone(key, ended.ended);
                if !known {
                    begins.push(key.clone());
                }
            }
            let fought = |key: &ObjectKey| limiter.is_fought(key, ended.ended);
            self.told.conflicts.retain(fought);
        }
        self.fought(&begins);
    }

    pub(super) fn judge_fetch(&mut self, fetch: &FetchOutcome, took: Duration, now: Instant) {
        self.first_fetch_over = true;
        self.account.fetched(fetch, took);
        let before = self.schedule.breaker();
        match fetch {
            FetchOutcome::Rejected(_) | FetchOutcome::Failed(_) => {
                self.schedule.failed(now, random::fraction())
            }
            _ => self.schedule.succeeded(now, random::fraction()),
        }
        self.told.fetch(fetch, before, &self.schedule, now);
    }

    pub(super) fn enter_state(&mut self, ended: &Ended) {
        if self.shared.is_stopping() {
            return;
        }
        let report = &ended.report;
        let limiter = locked(&self.shared.limiter);
        let mut fought: Vec<String> = limiter
            .paused(ended.ended)
            .take(logging::NAMED)
            .map(|(key, ..)| key.to_string())
            .collect();
        let more = limiter.paused(ended.ended).skip(logging::NAMED).count();
        drop(limiter);
        if more > 0 {
            fought.push(format!("{more} more"));
        }
        let (state, reason) = if self.shared.is_paused() {
            (State::Paused, self.account.reason().map(str::to_owned))
        } else if let Some(error) = &report.error {
            let state = match self.account.state() {
                State::Starting => State::Starting,
                _ => State::Degraded,
            };
            (state, Some(error.clone()))
        } else if !fought.is_empty() {
            let reason = format!("other programs keep changing {}", fought.join(", "));
            (State::Degraded, Some(reason))
        } else {
            (State::InForce, None)
        };
        self.account.enter(state, reason);
    }

    /// The interval between resyncs, shorter where the kernel announces no change of the firewall.
    pub(super) fn resync_interval(
        &self,
        backend: Option<&crate::reconcile::BackendChoice>,
    ) -> Duration {
        let resync = self.settings.config.agent.resync;
        match backend {
            Some(backend) if !backend.variant.announces_changes() => resync.min(LEGACY_CHECK),
            _ => resync,
        }
    }
}
