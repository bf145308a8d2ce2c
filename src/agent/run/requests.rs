//! Requests to the agent, through the control socket and by signals.

use std::time::{Duration, Instant};

use super::super::drains::DrainRequest;
use super::super::meter::{self, Reading};
use super::Agent;
use crate::health::Health;
use crate::reconcile::Cause;
use crate::status::control::{Asked, Reply, Request};
use crate::status::snapshot::{Snapshot, State};

/// SIGTERM ends the process within a second, even during a pass. The other half of that second is
/// for the end of the process, which takes 150 ms with 100,000 prefixes in memory.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl Agent {
    pub(super) fn answer(&mut self, asked: Asked) {
        let reply = match asked.request {
            Request::Status => Reply::Status(Box::new(self.snapshot())),
            Request::Settings => Reply::Settings(Box::new(self.config_file.settings())),
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
            Request::Documents => {
                tracing::info!("another process has stored documents: a pass reads them");
                // An answer of the source from before may not know them.
                self.give_up_fetch(Instant::now());
                self.cause(Cause::Resync);
                Reply::Done
            }
            Request::Release { by } => {
                tracing::info!(
                    "{by} is about to change the firewall: its table is open until the next pass"
                );
                self.shared.protection.release();
                self.cause(Cause::Drift);
                Reply::Done
            }
            Request::Drain { gateway, by } => {
                return self.ask_drain(DrainRequest {
                    gateway,
                    by: Some(by),
                    answer: asked.answer,
                });
            }
            Request::Undrain { gateway } => {
                return self.ask_drain(DrainRequest {
                    gateway,
                    by: None,
                    answer: asked.answer,
                });
            }
            Request::Pause { by } => {
                tracing::warn!(
                    "paused by {by}: nothing is restored until `trailblazer kick` or a restart"
                );
                self.shared.pause();
                self.meter.use_pins(None);
                self.prober.watch(None, &Health::default());
                // The answer would be outdated at the end of the pause.
                self.give_up_fetch(Instant::now());
                let reason = format!("paused by {by} until `trailblazer kick` or a restart");
                self.account.enter(State::Paused, Some(reason.clone()));
                self.remember_since();
                self.notifier.status(reason);
                Reply::Done
            }
        };
        // A client may have disconnected meanwhile.
        let _ = asked.answer.send(reply);
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let reading = self.meter.read();
        let gateways = self.gateways_with(&reading);
        let Reading {
            traffic,
            conntrack,
            pinned,
            ..
        } = reading;
        let fetching = self.fetching.is_some();
        let price = self.settings.config.agent.nat_price_per_gb;
        Snapshot {
            saved_dollars: traffic.as_ref().map(|all| meter::saved(all, price)),
            bypass_percent: traffic.as_ref().and_then(meter::bypass_percent),
            gateways,
            conntrack,
            pinned,
            traffic,
            config: Some(self.config_file.status()),
            ..self
                .account
                .snapshot(&self.settings, &self.schedule, fetching, &self.shared)
        }
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
