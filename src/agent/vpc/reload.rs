//! New settings after SIGHUP in the vpc role: reading, test by a dry run, acceptance or refusal.

use std::sync::Arc;
use std::time::Instant;

use super::super::config_file::Refusal;
use super::super::config_reading::ReadingEnd;
use super::worker::Order;
use super::{Agent, Read};
use crate::config::Config;
use crate::config::file::ConfigOrigin;
use crate::degraded::Part;
use crate::journal::Record;
use crate::random;
use crate::reconcile::Cause;
use crate::vpc::report::VpcReport;

/// Settings under test.
pub(super) struct Candidate {
    pub config: Arc<Config>,
    origin: ConfigOrigin,
    /// The number of the reading.
    reload: u64,
}

impl Agent {
    /// Begins a reload.
    pub(super) fn reload(&mut self) {
        self.notifier.reloading();
        if let Err(reason) = self.reading.request(Instant::now()) {
            self.refuse_unread(&reason);
        }
    }

    /// Refuses a reload whose file cannot be read in time.
    pub(super) fn end_silent_reading(&mut self, now: Instant) {
        if let Some(reason) = self.reading.timed_out(now) {
            self.refuse_unread(&reason);
        }
    }

    fn refuse_unread(&mut self, reason: &str) {
        let text = format!("cannot read the config file: {reason}");
        self.refuse(None, &text, &text, self.reading.number());
    }

    /// Continues a reload with the content of the file.
    pub(super) fn config_read(&mut self, read: Read) {
        let reload = match self.reading.ended() {
            ReadingEnd::Counts(reload) => reload,
            ReadingEnd::Outdated => return,
            ReadingEnd::Failed(reason) => return self.refuse_unread(&reason),
        };
        match read {
            Ok(loaded) if loaded.config.vpc_role => {
                self.candidate = Some(Candidate {
                    config: Arc::new(loaded.config),
                    origin: loaded.origin,
                    reload,
                });
            }
            Ok(_) => {
                let text = "role: a running agent keeps role = \"vpc\": restart the agent for another role";
                self.refuse(None, text, text, reload);
            }
            Err(wrong) => {
                self.refuse(wrong.line(), &wrong.summary(), &wrong.to_string(), reload);
            }
        }
    }

    /// Keeps the earlier settings. `text` is the reason in full.
    fn refuse(&mut self, line: Option<usize>, reason: &str, text: &str, reload: u64) {
        tracing::error!("invalid config, the previous config stays in force: {text}");
        let refusal = Refusal {
            line,
            reason: reason.to_owned(),
        };
        let record = self.config_file.refused(&refusal, reload);
        self.tell_reload(record);
        self.notifier.ready();
    }

    /// Writes a line to the journal, and the remark for `systemctl status`.
    fn tell_reload(&mut self, record: Option<Record>) {
        self.notifier.remark(self.config_file.remark());
        if let Some(record) = record {
            let state_dir = self.config.source.state_dir.clone();
            let record = Box::new(record);
            // The worker ends only with the loop.
            let _ = self.orders.send(Order::Write { state_dir, record });
        }
    }

    /// Accepts or refuses settings after their test.
    pub(super) fn probed(&mut self, candidate: Candidate, report: &VpcReport) {
        let error = report.error.clone().filter(|_| !report.without_document);
        // A mistake in the new config must not cost a part that works.
        let lost = report.degraded.iter().find(|missing| {
            missing.part == Part::Bypass && !self.account.lacks(missing.part, missing.family)
        });
        let reason = error.or(lost.map(ToString::to_string));
        // A fault of EC2 is no reason against the settings in force.
        let reason = reason.filter(|_| *candidate.config != *self.config);
        if let Some(reason) = reason {
            let one_line = reason.lines().collect::<Vec<_>>().join(" ");
            return self.refuse(None, &one_line, &reason, candidate.reload);
        }
        let Candidate {
            config,
            origin,
            reload,
        } = candidate;
        let record = self.config_file.accepted(origin, reload);
        self.accept(config);
        self.tell_reload(record);
    }

    fn accept(&mut self, config: Arc<Config>) {
        let now = Instant::now();
        let old = std::mem::replace(&mut self.config, config);
        let new = Arc::clone(&self.config);
        self.schedule
            .set_refresh(new.source.refresh, now, random::fraction());
        self.schedule.bring_forward(now);
        self.listeners.follow(&old.agent, &new.agent);
        if old.source.state_dir != new.source.state_dir {
            tracing::warn!(
                "a change of [source] state_dir takes full effect only after a restart of the agent"
            );
        }
        self.reloading = true;
        tracing::info!("new config accepted: in force from the next pass on");
        self.cause(Cause::Config);
    }
}
