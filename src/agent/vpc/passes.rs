//! Starts passes over the VPC, and processes their results.

use std::sync::Arc;
use std::time::Instant;

use super::super::bookkeeping::{Account, now_s};
use super::super::logging;
use super::reload::Candidate;
use super::worker::{Ended, Order, PassOrder};
use super::{Agent, Running};
use crate::config::Config;
use crate::degraded;
use crate::random;
use crate::reconcile::{Asking, Cause, FetchOutcome, Mode, Options, Watched};
use crate::status::snapshot::{BreakerState, State};
use crate::types::{Family, PerFamily};
use crate::vpc::report::VpcReport;
use crate::words::counted;

impl Agent {
    pub(super) fn start_pass(&mut self, cause: Cause, now: Instant) {
        self.causes.clear();
        let asks = now >= self.schedule.due();
        if asks {
            self.schedule.started(now);
        }
        let asking = if asks { Asking::Source } else { Asking::Nobody };
        let options = Options {
            cause,
            asking,
            // A pass without a change leaves no line in the journal.
            watched: Some(Watched::default()),
            ..Options::default()
        };
        self.send(Arc::clone(&self.config), options, None, now);
    }

    pub(super) fn start_probe(&mut self, candidate: Candidate, now: Instant) {
        let options = Options {
            cause: Cause::Reload,
            mode: Mode::DryRun,
            ..Options::default()
        };
        self.send(Arc::clone(&candidate.config), options, Some(candidate), now);
    }

    fn send(
        &mut self,
        config: Arc<Config>,
        options: Options,
        probe: Option<Candidate>,
        now: Instant,
    ) {
        let order = PassOrder { config, options };
        if self.orders.send(Order::Pass(Box::new(order))).is_err() {
            tracing::error!("the worker has ended: no pass can run; restart the agent");
            return;
        }
        self.running = Some(Running { since: now, probe });
    }

    pub(super) fn pass_ended(&mut self, ended: Ended) {
        let Some(running) = self.running.take() else {
            return;
        };
        let Some(report) = &ended.report else {
            if ended.asked {
                self.schedule.given_up(ended.ended);
            }
            return;
        };
        let requests = &mut self.vpc.requests;
        requests.reads += report.sent.reads;
        requests.changes += report.sent.changes;
        requests.throttled += report.sent.throttled;
        if let Some(candidate) = running.probe {
            return self.probed(candidate, report);
        }
        self.resync_at = ended.ended + self.config.agent.resync;
        self.vpc.region = ended.region.clone().or(self.vpc.region.take());
        self.vpc.holds.clone_from(&report.holds);
        let drifted = self.account.passed_over_vpc(&ended, report);
        if let Some(plane) = &report.plane {
            self.vpc.lists.clone_from(&plane.lists);
            self.vpc.tables.clone_from(&plane.tables);
            self.account.snapshot.routes = PerFamily::from_fn(|family| plane.routes(family));
        }
        if report.was_judged() {
            self.account
                .guarded(&report.guard_state, &self.config.guard);
        }
        self.judge_fetch(&ended, report);
        self.retry.after(report, ended.ended, random::fraction());
        (self.vpc.failures, self.vpc.failing_since) = match self.retry.at {
            Some(_) => {
                let since = self.vpc.failing_since.or(Some(now_s()));
                (self.vpc.failures + 1, since)
            }
            None => (0, None),
        };
        let loss = report.was_judged() && self.loss.begins(report.without_document);
        if loss && !ended.asked && self.schedule.breaker() != BreakerState::Open {
            // The state dir was removed, and with it the document: only the source has another one.
            self.schedule.bring_forward(ended.ended);
        }
        if drifted {
            // The time in force ended at an unknown moment before this pass.
            let reason = "another program had changed lists or routes".to_owned();
            self.account.enter(State::Degraded, Some(reason));
        }
        self.enter_state(report);
        self.told.pass(&ended, report);
        self.told_of_source.age(&self.account, &self.config.agent);
        self.first_pass_over = true;
        let ready = report.was_judged() && !self.notifier.is_ready();
        if std::mem::take(&mut self.reloading) || ready {
            self.notifier.ready();
        }
        self.notifier.status(status_line(report, &self.account));
    }

    fn judge_fetch(&mut self, ended: &Ended, report: &VpcReport) {
        if !ended.asked {
            return;
        }
        let now = ended.ended;
        if report.fetch == FetchOutcome::NotAsked && report.error.is_some() {
            // The pass failed before it looked at the answer: the retry asks again.
            return self.schedule.given_up(now);
        }
        self.account.fetched(&report.fetch, report.fetch_took);
        let before = self.schedule.breaker();
        match report.fetch {
            FetchOutcome::Rejected(_) | FetchOutcome::Failed(_) => {
                self.schedule.failed(now, random::fraction());
            }
            _ => self.schedule.succeeded(now, random::fraction()),
        }
        self.told_of_source
            .fetch(&report.fetch, before, &self.schedule, now);
    }

    /// In force is EC2's word: the last reading of the pass has the whole goal.
    fn enter_state(&mut self, report: &VpcReport) {
        if self.paused || self.account.state() == State::Stopping {
            return;
        }
        let (state, reason) = if let Some(error) = &report.error {
            let starting = self.account.state() == State::Starting && report.done == 0;
            let state = match starting && report.conflicts.is_empty() {
                true => State::Starting,
                false => State::Degraded,
            };
            (state, Some(error.clone()))
        } else if let Some(missing) = degraded::first_of(&report.degraded) {
            (State::Degraded, Some(missing))
        } else if let Some(hold) = report.holds.first() {
            (State::Degraded, Some(format!("held: {hold}")))
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
        let state_dir = self.config.source.state_dir.clone();
        // The worker ends only with the loop.
        let _ = self.orders.send(Order::Since { state_dir, since });
    }
}

/// The line for `systemctl status`.
fn status_line(report: &VpcReport, account: &Account) -> String {
    let plane = report.plane.as_ref();
    let lists = plane.into_iter().flat_map(|plane| &plane.lists);
    let entries: usize = lists.map(|list| list.entries).sum();
    let tables = plane.map_or(0, |plane| plane.tables.len());
    let routes: usize = Family::ALL
        .iter()
        .map(|family| plane.map_or(0, |plane| plane.routes(*family)))
        .sum();
    let objects = format!(
        "{}, {} in {}",
        entries_text(entries),
        counted(routes as u64, "route"),
        counted(tables as u64, "table")
    );
    logging::state_line(account, report.sync_token, report.held, &objects)
}

fn entries_text(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    }
}
