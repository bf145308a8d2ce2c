//! New settings after SIGHUP: reading, test by a dry run, and acceptance or refusal.

use std::sync::Arc;
use std::time::Instant;

use super::super::Settings;
use super::super::config_file::Refusal;
use super::super::config_reading::ReadingEnd;
use super::super::worker::{Ended, Order};
use super::{Agent, Read};
use crate::degraded::Part;
use crate::journal::Record;
use crate::random;
use crate::reconcile::Cause;

/// Settings under test.
pub(super) struct Candidate {
    pub settings: Settings,
    /// The number of the reading.
    pub reload: u64,
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
        let refusal = Refusal {
            line: None,
            reason: format!("cannot read the config file: {reason}"),
        };
        let text = refusal.reason.clone();
        self.refuse(&refusal, &text, self.reading.number());
    }

    /// Continues a reload with the content of the file.
    pub(super) fn config_read(&mut self, read: Read) {
        let reload = match self.reading.ended() {
            ReadingEnd::Counts(reload) => reload,
            ReadingEnd::Outdated => return,
            ReadingEnd::Failed(reason) => return self.refuse_unread(&reason),
        };
        match read {
            Ok(settings) => self.candidate = Some(Candidate { settings, reload }),
            Err(wrong) => {
                let refusal = Refusal {
                    line: wrong.line(),
                    reason: wrong.summary(),
                };
                self.refuse(&refusal, &wrong.to_string(), reload);
            }
        }
    }

    /// Keeps the earlier settings. `text` is the reason in full.
    fn refuse(&mut self, refusal: &Refusal, text: &str, reload: u64) {
        tracing::error!("invalid config, the previous config stays in force: {text}");
        let record = self.config_file.refused(refusal, reload);
        self.tell_reload(record);
        self.notifier.ready();
    }

    /// Writes a line to the journal, and the remark for `systemctl status`.
    fn tell_reload(&mut self, record: Option<Record>) {
        self.notifier.remark(self.config_file.remark());
        if let Some(record) = record {
            let state_dir = self.settings.config.source.state_dir.clone();
            let record = Box::new(record);
            // The worker ends only with the loop.
            let _ = self.orders.send(Order::Write { state_dir, record });
        }
    }

    /// Accepts or refuses settings after their test.
    pub(super) fn probed(&mut self, candidate: Candidate, ended: &Ended) {
        let Candidate { settings, reload } = candidate;
        let report = &ended.report;
        let error = report.error.clone().filter(|_| !report.without_document);
        // A mistake in the new config must not cost a part that works.
        let lost = report.degraded.iter().find(|missing| {
            let part = missing.part;
            let affects_paths = matches!(part, Part::Egress | Part::Translation | Part::Bypass);
            affects_paths && !self.account.lacks(part, missing.family)
        });
        let reason = error.or(lost.map(ToString::to_string));
        // A fault of the host is no reason against the settings in force.
        let reason = reason.filter(|_| !settings.means(&self.settings));
        if let Some(reason) = reason {
            let one_line = reason.lines().collect::<Vec<_>>().join(" ");
            let refusal = Refusal {
                line: None,
                reason: one_line,
            };
            return self.refuse(&refusal, &reason, reload);
        }
        let record = self.config_file.accepted(settings.origin.clone(), reload);
        self.accept(settings);
        self.tell_reload(record);
    }

    fn accept(&mut self, settings: Settings) {
        let now = Instant::now();
        let old = std::mem::replace(&mut self.settings, settings);
        let (old, new) = (&old.config, Arc::clone(&self.settings.config));
        self.give_up_fetch(now);
        self.schedule
            .set_refresh(new.source.refresh, now, random::fraction());
        self.schedule.bring_forward(now);
        self.listeners.follow(&old.agent, &new.agent);
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
}
