//! Requests to the agent of the vpc role, through the control socket and by signals.

use std::time::{Duration, Instant};

use super::Agent;
use crate::reconcile::Cause;
use crate::status::control::{Asked, Reply, Request};
use crate::status::snapshot::{Snapshot, State, VpcStatus};

/// SIGTERM ends the process within a second, even during a pass.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl Agent {
    pub(super) fn answer(&mut self, asked: Asked) {
        let reply = match asked.request {
            Request::Status => Reply::Status(Box::new(self.snapshot())),
            Request::Settings => Reply::Settings(Box::new(self.config_file.settings())),
            Request::Kick => {
                if std::mem::take(&mut self.paused) {
                    tracing::info!("kick received: the pause ends, and passes resume");
                    self.halt.send_replace(false);
                }
                self.cause(Cause::Kick);
                self.schedule.bring_forward(Instant::now());
                Reply::Done
            }
            Request::Documents => {
                tracing::info!("another process has stored documents: a pass reads them");
                self.cause(Cause::Resync);
                Reply::Done
            }
            Request::Pause { by } => {
                tracing::warn!(
                    "paused by {by}: nothing is restored until `trailblazer kick` or a restart"
                );
                self.paused = true;
                self.halt.send_replace(true);
                let reason = format!("paused by {by} until `trailblazer kick` or a restart");
                self.account.enter(State::Paused, Some(reason.clone()));
                self.remember_since();
                self.notifier.status(reason);
                Reply::Done
            }
            Request::Release { .. } | Request::Drain { .. } | Request::Undrain { .. } => {
                let why = "the agent has role = \"vpc\", which has no kernel and no gateways";
                Reply::Refused(why.to_owned())
            }
        };
        // A client may have disconnected meanwhile.
        let _ = asked.answer.send(reply);
    }

    fn snapshot(&mut self) -> Snapshot {
        let asks = self.running.is_some();
        let next = self.next_pass().saturating_duration_since(Instant::now());
        let next_pass_in_s = if asks { 0 } else { next.as_secs() };
        Snapshot {
            config: Some(self.config_file.status()),
            vpc: Some(VpcStatus {
                next_pass_in_s,
                ..self.vpc.clone()
            }),
            ..self.account.timed(&self.config.agent, &self.schedule, asks)
        }
    }

    /// Begins the end of the process. The pass that runs is given up.
    pub(super) fn stop(&mut self, already: Option<Instant>) -> Instant {
        if let Some(by) = already {
            return by;
        }
        tracing::info!("stopping: prefix lists and routes stay as they are");
        self.notifier.stopping();
        self.halt.send_replace(true);
        let reason = "stopping; prefix lists and routes stay as they are";
        self.account.enter(State::Stopping, Some(reason.to_owned()));
        Instant::now() + STOP_WITHIN
    }
}
