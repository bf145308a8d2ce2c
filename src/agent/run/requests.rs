//! Requests to the agent, through the control socket and by signals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::worker::Ended;
use super::super::{Settings, meter};
use super::Agent;
use crate::config::Config;
use crate::degraded::Part;
use crate::random;
use crate::reconcile::Cause;
use crate::status::control::{Asked, MetricsServer, Reply, Request, serve_metrics, serve_socket};
use crate::status::snapshot::{Snapshot, State};

/// SIGTERM ends the process within a second, even during a pass. The other half of that second is
/// for the end of the process, which takes 150 ms with 100,000 prefixes in memory.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl<R: Fn() -> Result<Settings, String>> Agent<R> {
    pub(super) fn answer(&mut self, asked: Asked) {
        let reply = match asked.request {
            Request::Status => Reply::Status(Box::new(self.snapshot())),
            Request::Kick => {
                if self.shared.is_paused() {
                    tracing::info!("kick received: the pause ends, and repairs resume");
                }
                self.shared.resume();
                self.cause(Cause::Kick);
                if self.fetching.is_none() {
                    self.schedule.bring_forward(Instant::now());
                }
                Reply::Done
            }
            Request::Pause { by } => {
                tracing::warn!(
                    "paused by {by}: nothing is restored until `trailblazer kick` or a restart"
                );
                self.shared.pause();
                // The answer would be outdated at the end of the pause.
                self.give_up_fetch(Instant::now());
                let reason = format!("paused by {by} until `trailblazer kick` or a restart");
                self.account.enter(State::Paused, Some(reason.clone()));
                self.notifier.status(reason);
                Reply::Done
            }
        };
        // A client may have disconnected meanwhile.
        let _ = asked.answer.send(reply);
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let traffic = self.meter.read();
        let fetching = self.fetching.is_some();
        let price = self.settings.config.agent.nat_price_per_gb;
        Snapshot {
            saved_dollars: traffic.as_ref().map(|all| meter::saved(all, price)),
            traffic,
            ..self
                .account
                .snapshot(&self.settings, &self.schedule, fetching, &self.shared)
        }
    }

    /// Reads the settings again after SIGHUP; a dry run tests the new settings before they replace
    /// the old settings.
    pub(super) fn reload(&mut self) {
        self.notifier.reloading();
        match (self.reload)() {
            Ok(settings) => self.probe = Some(settings),
            Err(why) => {
                tracing::error!("invalid config, the previous config stays in force: {why}");
                self.notifier.ready();
            }
        }
    }

    pub(super) fn probed(&mut self, settings: Settings, ended: &Ended) {
        let report = &ended.report;
        let error = report.error.clone().filter(|_| !report.without_document);
        // A mistake in the new config must not cost a part that works.
        let lost = report.degraded.iter().find(|missing| {
            let part = missing.part;
            let affects_paths = matches!(part, Part::Egress | Part::Translation | Part::Bypass);
            affects_paths && !self.account.lacks(part, missing.family)
        });
        if let Some(error) = error.or(lost.map(ToString::to_string)) {
            tracing::error!("invalid config, the previous config stays in force: {error}");
            self.notifier.ready();
            return;
        }
        let now = Instant::now();
        let old = std::mem::replace(&mut self.settings, settings);
        let (old, new) = (&old.config, Arc::clone(&self.settings.config));
        self.give_up_fetch(now);
        self.schedule
            .set_refresh(new.source.refresh, now, random::fraction());
        self.schedule.bring_forward(now);
        if old.agent.metrics != new.agent.metrics {
            self.metrics = None;
            self.metrics = metrics(&new, &self.asked_to);
        }
        if old.agent.socket != new.agent.socket {
            self.control = None;
            match serve_socket(&new.agent.socket, self.asked_to.clone()) {
                Ok(socket) => self.control = Some(socket),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let fixed = old.source.state_dir != new.source.state_dir
            || old.agent.event_buffer != new.agent.event_buffer;
        if fixed {
            tracing::warn!(
                "changes of [source] state_dir and [agent] event_buffer take full effect only after a restart of the agent"
            );
        }
        self.reloading = true;
        tracing::info!("new config accepted: in force from the next pass on");
        self.cause(Cause::Config);
    }

    /// Begins the end of the process: after the running step of a pass, at the latest within a second.
    pub(super) fn stop(&mut self, already: Option<Instant>) -> Instant {
        if let Some(by) = already {
            return by;
        }
        tracing::info!("stopping: routes, rules and firewall stay as they are");
        self.notifier.stopping();
        self.shared.stop();
        let reason = "stopping; routes, rules and firewall stay as they are";
        self.account.enter(State::Stopping, Some(reason.to_owned()));
        Instant::now() + STOP_WITHIN
    }
}

pub(super) fn metrics(config: &Config, asked_to: &mpsc::Sender<Asked>) -> Option<MetricsServer> {
    match serve_metrics(config.agent.metrics?, asked_to.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}
