//! Starts passes and fetches, and processes their results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::repair_log::may_wait;
use super::super::shared::locked;
use super::super::worker::{Ended, Order, PassOrder};
use super::super::{AgentError, hops, logging};
use super::reload::Candidate;
use super::{Agent, EndedFetch, Running};
use crate::degraded;
use crate::ownership::{Numbers, Ownership};
use crate::plan::{ObjectKey, Step};
use crate::random;
use crate::reconcile::report::Applied;
use crate::reconcile::{Cause, FetchOutcome, Gathered, Mode, Options, Watched, gather};
use crate::status::snapshot::State;
use crate::words::first_few;

/// Time after a change of a link in which a pass still restores routes removed with that link.
const LINK_SETTLES: Duration = Duration::from_secs(2);
/// Restored objects kept for the journal of the next pass.
const KEPT_STEPS: usize = crate::journal::MAX_LISTED;

impl Agent {
    pub(super) fn start_pass(&mut self, cause: Cause, now: Instant) {
        self.causes.clear();
        let limiter = locked(&self.shared.limiter);
        let watched = Watched {
            paused: limiter.exhausted(now).cloned().collect(),
            contested: limiter.fought(now).cloned().collect(),
            repaired: std::mem::take(&mut self.repaired),
            // The worker adds the earlier state.
            earlier: None,
        };
        drop(limiter);
        let options = Options {
            cause,
            watched: Some(watched),
            health: locked(&self.shared.health).clone(),
            // The prober has published nothing yet.
            former_health: locked(&self.shared.ways).is_none(),
            drained: self.drains.gateways(),
            ways: std::mem::take(&mut *locked(&self.shared.way_changes)),
            ..Options::default()
        };
        let (gathered, took) = match self.gathered.take() {
            Some((gathered, took)) => (gathered, Some(took)),
            None => (Gathered::default(), None),
        };
        self.send(options, gathered, took, None, now);
    }

    pub(super) fn start_probe(&mut self, candidate: Candidate, now: Instant) {
        let options = Options {
            cause: Cause::Reload,
            mode: Mode::DryRun,
            ..Options::default()
        };
        self.send(options, Gathered::default(), None, Some(candidate), now);
    }

    pub(super) fn send(
        &mut self,
        options: Options,
        gathered: Gathered,
        fetch_took: Option<Duration>,
        probe: Option<Candidate>,
        now: Instant,
    ) {
        let tested = probe.as_ref().map(|candidate| &candidate.settings);
        let settings = tested.unwrap_or(&self.settings);
        let health = options.health.clone();
        let ways = options.ways.clone();
        let order = PassOrder {
            config: Arc::clone(&settings.config),
            role: settings.role,
            options,
            gathered,
        };
        if self.orders.send(Order::Pass(Box::new(order))).is_err() {
            tracing::error!("the worker has ended: no pass can run; restart the agent");
            return;
        }
        self.running = Some(Running {
            since: now,
            fetch_took,
            probe,
            health,
            ways,
        });
    }

    pub(super) fn start_fetch(&mut self, now: Instant) {
        self.schedule.started(now);
        let (config, role) = (Arc::clone(&self.settings.config), self.settings.role);
        let asker = self.asker.clone();
        let (own, to_loop) = (self.own_networks.clone(), self.fetched_to.clone());
        let task = tokio::spawn(async move {
            let gathered = gather(&config, role, &Options::default(), &asker, &own, None).await;
            let (by, took) = (tokio::task::id(), now.elapsed());
            // A failure means that the loop has ended.
            let _ = to_loop.send(EndedFetch { by, gathered, took });
        });
        self.fetching = Some(task.abort_handle());
    }

    /// Discards a running fetch and a result not yet used: after a change of settings, and at the
    /// beginning of a pause.
    pub(super) fn give_up_fetch(&mut self, now: Instant) {
        let running = self.fetching.take();
        if let Some(task) = &running {
            task.abort();
        }
        if running.is_some() | self.gathered.take().is_some() {
            self.schedule.given_up(now);
        }
    }

    pub(super) fn fetch_ended(&mut self, over: EndedFetch) {
        // A discarded fetch may have sent a result before its end.
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

    pub(super) fn noticed(&mut self) -> Result<(), AgentError> {
        let noticed = std::mem::take(&mut *locked(&self.shared.noticed));
        if let Some(why) = noticed.deaf {
            return Err(AgentError::Deaf(why));
        }
        self.account.noticed(&noticed);
        if let Some(at) = noticed.repaired_at {
            self.debounce.mended(at);
        }
        if let Some(at) = noticed.event {
            self.debounce.event(at);
        }
        if let Some(at) = noticed.urgent_in(self.settings.role) {
            self.debounce.urgent(at);
        }
        if noticed.health_changed {
            self.cause(Cause::Probe);
        }
        self.link_changed = noticed.link_changed.or(self.link_changed);
        if noticed.way_changed && self.schedule.failures_in_a_row() > 0 {
            self.schedule.bring_forward(Instant::now());
        }
        self.fought(&noticed.fought);
        let room = KEPT_STEPS.saturating_sub(self.repaired.len());
        self.repaired.extend(noticed.steps.into_iter().take(room));
        self.told.put_back += noticed.steps_total;
        for cause in noticed.causes {
            if self.heard.len() < 8 && !self.heard.contains(&cause) {
                self.heard.push(cause);
            }
        }
        Ok(())
    }

    /// Reports new conflicts; each object is logged once, until the conflict ends.
    pub(super) fn fought(&mut self, keys: &[ObjectKey]) {
        let ownership = Ownership::new(Numbers::of(&self.settings.config), []);
        let new: Vec<(&ObjectKey, String, bool)> = keys
            .iter()
            .filter(|key| self.told.conflicts.insert((*key).clone()))
            .map(|key| (key, self.shared.culprit(key), may_wait(key, &ownership)))
            .collect();
        if !new.is_empty() {
            logging::conflicts(&new);
            self.account.fought();
        }
        if let Some(key) = keys.first()
            && self.account.state() == State::InForce
        {
            let culprit = self.shared.culprit(key);
            let reason = format!("{culprit} keeps changing {key}");
            self.account.enter(State::Degraded, Some(reason));
            self.remember_since();
        }
    }

    pub(super) fn pass_ended(&mut self, ended: Ended) {
        let Some(running) = self.running.take() else {
            return;
        };
        if let Some(candidate) = running.probe {
            return self.probed(candidate, &ended);
        }
        let report = &ended.report;
        if !report.is_recorded {
            self.shared.put_back(running.ways);
        }
        self.debounce
            .passed(ended.started, ended.ended, ended.effort);
        self.resync_at = ended.ended + self.settings.config.agent.resync;
        self.poll_firewall(report.backend.as_ref());
        self.poll_foreign();
        self.count_repairs(&ended);
        self.account.passed(&ended);
        if report.was_judged() {
            let guard = &self.settings.config.guard;
            self.account.guarded(&report.guard_state, guard);
        }
        if let Some(took) = running.fetch_took {
            if report.fetch == FetchOutcome::NotAsked && report.error.is_some() {
                // The pass failed before it looked at the answer: the document is still to be had.
                self.schedule.failed(ended.ended, random::fraction());
            } else {
                self.judge_fetch(&report.fetch, took, ended.ended);
            }
        }
        if report.without_document
            && report.fetch == FetchOutcome::NotAsked
            && self.first_fetch_over
            && self.schedule.failures_in_a_row() == 0
        {
            // The source has answered, and the document is gone since: only a fetch restores the
            // bypass path after the next loss of its routes.
            self.schedule.bring_forward(ended.ended);
        }
        if let Some(in_force) = &ended.in_force {
            self.own_networks = in_force.facts.own_networks();
            self.gateways = hops::gateways(in_force, &self.settings);
            let addresses = hops::egress_addresses(in_force, &self.settings);
            self.account.addressed(addresses);
            // A pass that ends in a pause was about objects that `flush` deletes.
            if !self.shared.is_paused() {
                self.probe_ways(in_force, running.health, &report.plan.steps);
            }
        }
        if let Some(backend) = &report.backend {
            self.meter.use_backend(backend.kind, self.settings.role);
            // A reading at each pass: a later flush of the counters loses little.
            self.meter.read();
        }
        self.retry.passed(report, ended.ended);
        self.enter_state(&ended);
        self.told.pass(&ended, std::mem::take(&mut self.heard));
        self.told.age(&self.account, &self.settings.config.agent);
        self.first_pass_over = true;
        let ready = self.account.state() == State::InForce || self.first_fetch_over;
        if std::mem::take(&mut self.reloading) || (ready && !self.notifier.is_ready()) {
            self.notifier.ready();
        }
        let status = logging::status_line(&ended.report, &self.account);
        self.notifier.status(status);
    }

    /// Counts the repairs of a pass in the limiter, and begins the pauses of withheld objects.
    pub(super) fn count_repairs(&mut self, ended: &Ended) {
        let report = &ended.report;
        let mut begins = Vec::new();
        let ownership = Ownership::new(Numbers::of(&self.settings.config), []);
        // The kernel removes routes with their link: no conflict with another program.
        let with_link = self
            .link_changed
            .is_some_and(|at| ended.started < at + LINK_SETTLES);
        let goes_with_link = |key: &ObjectKey| matches!(key, ObjectKey::Route(_));
        {
            let mut limiter = locked(&self.shared.limiter);
            let mut log = locked(&self.shared.repair_log);
            limiter.passed(ended.started);
            log.passed(ended.started);
            let changed = ended.drift && report.applied == Applied::All;
            // One repair per pass and object, regardless of the number of attempts.
            let keys: BTreeSet<ObjectKey> = report.plan.steps.iter().map(Step::key).collect();
            for key in &keys {
                if !changed || (with_link && goes_with_link(key)) {
                    continue;
                }
                if may_wait(key, &ownership) {
                    limiter.allow(key, ended.ended);
                } else if log.record(key, ended.ended) {
                    begins.push(key.clone());
                }
            }
            for key in &report.fought {
                if !may_wait(key, &ownership) {
                    self.debounce.urgent(ended.ended);
                    continue;
                }
                let known = limiter.is_paused(key, ended.started);
                if keys.contains(key) {
                    // Repaired in this pass and changed again at once: a longer pause follows.
                    limiter.allow(key, ended.ended);
                }
                limiter.left_alone(key, ended.ended);
                if !known {
                    begins.push(key.clone());
                }
            }
            let fought =
                |key: &ObjectKey| limiter.is_fought(key, ended.ended) || log.is_fought(key);
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
        let log = locked(&self.shared.repair_log);
        let egress = log.fought().map(|(key, _)| key);
        let keys = egress.chain(limiter.paused(ended.ended).map(|(key, ..)| key));
        let fought = first_few(keys, logging::NAMED, ", ");
        drop((limiter, log));
        let (state, reason) = if self.shared.is_paused() {
            (State::Paused, self.account.reason().map(str::to_owned))
        } else if let Some(error) = &report.error {
            // With a conflict the other objects are in force.
            let has_objects = report.applied != Applied::None || !report.plan.conflicts.is_empty();
            let state = match self.account.state() {
                State::Starting if report.without_document || !has_objects => State::Starting,
                _ => State::Degraded,
            };
            let missing = report.degraded.first().filter(|_| report.without_document);
            let missing = missing.map_or_else(String::new, |missing| format!("{missing}; "));
            (state, Some(format!("{missing}{error}")))
        } else if let Some(missing) = degraded::first_of(&report.degraded) {
            (State::Degraded, Some(missing))
        } else if !fought.is_empty() {
            let reason = format!("other programs keep changing {fought}");
            (State::Degraded, Some(reason))
        } else {
            (State::InForce, None)
        };
        self.account.enter(state, reason);
        self.remember_since();
    }

    /// Stores the start of the time in force after a change. Before the first pass in force, the
    /// start of the earlier process stays.
    pub(super) fn remember_since(&mut self) {
        let since = self.account.in_force_since();
        let undecided = self.account.state() == State::Starting;
        if since == self.stored_since || undecided {
            return;
        }
        self.stored_since = since;
        let state_dir = self.settings.config.source.state_dir.clone();
        // The worker ends only with the loop.
        let _ = self.orders.send(Order::Since { state_dir, since });
    }
}
