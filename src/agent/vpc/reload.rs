//! New settings after SIGHUP in the vpc role: reading, test by a dry run, acceptance or refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::config_file::Refusal;
use super::worker::Order;
use super::{Agent, Read, metrics};
use crate::config::Config;
use crate::config::file::ConfigOrigin;
use crate::degraded::Part;
use crate::journal::Record;
use crate::random;
use crate::reconcile::Cause;
use crate::status::control::serve_socket;
use crate::vpc::report::VpcReport;

/// Longest wait for the config file. systemd waits for the end of the reload.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The reading of the config file, on a thread of its own: a disk may never answer.
#[derive(Debug, Default)]
pub(super) struct Reading {
    running: bool,
    /// Another SIGHUP came meanwhile: the content may be outdated.
    again: bool,
    /// Time of refusing a reload without an answer.
    by: Option<Instant>,
    /// Readings so far.
    number: u64,
}

impl Reading {
    /// The end of the wait for the config file.
    pub fn due(&self) -> Option<Instant> {
        self.by
    }
}

/// Settings under test.
pub(super) struct Candidate {
    pub config: Arc<Config>,
    origin: ConfigOrigin,
    /// The number of the reading.
    reload: u64,
}

impl<R> Agent<R>
where
    R: Fn() -> Read + Clone + Send + 'static,
{
    /// Begins a reload.
    pub(super) fn reload(&mut self) {
        self.notifier.reloading();
        self.reading.by = Some(Instant::now() + READ_WITHIN);
        if self.reading.running {
            self.reading.again = true;
        } else {
            self.read_config();
        }
    }

    fn read_config(&mut self) {
        self.reading.again = false;
        self.reading.number += 1;
        let (read, to_loop) = (self.reload.clone(), self.read_to.clone());
        let thread = std::thread::Builder::new().name("reload".to_owned());
        // A failure means that the loop has ended.
        match thread.spawn(move || drop(to_loop.send(read()))) {
            Ok(_) => self.reading.running = true,
            Err(error) => self.refuse_unread(&format!("cannot start a thread: {error}")),
        }
    }

    /// Refuses a reload whose file cannot be read in time.
    pub(super) fn end_silent_reading(&mut self, now: Instant) {
        if self.reading.by.is_some_and(|by| now >= by) {
            let seconds = READ_WITHIN.as_secs();
            self.refuse_unread(&format!("the disk gives no answer within {seconds} s"));
        }
    }

    fn refuse_unread(&mut self, reason: &str) {
        self.reading.by = None;
        let text = format!("cannot read the config file: {reason}");
        self.refuse(None, &text, &text, self.reading.number);
    }

    /// Continues a reload with the content of the file.
    pub(super) fn config_read(&mut self, read: Read) {
        self.reading.running = false;
        if self.reading.again {
            return self.read_config();
        }
        self.reading.by = None;
        let reload = self.reading.number;
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
