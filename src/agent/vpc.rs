//! The agent of the vpc role: documents, drift and restarts of a VPC's route tables. The agent opens no
//! netlink socket and needs no capability.
//!
//! ```text
//!  refresh timer ─▶ FetchSchedule ─┐
//!  a failed pass ─▶ Retry ─────────┼─▶ PASS: source and EC2 ─▶ state, status, journal
//!  resync, kick, new settings ─────┘
//! ```
//!
//! A pass reads the tables and lists of EC2, and the entries of each version of a list once. A resync
//! reads the entries again.

mod account;
mod passes;
mod reload;
mod requests;
mod retry;
mod told;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, watch};

use self::reload::Candidate;
use self::retry::{Loss, Retry};
use self::told::Told;
use self::worker::{Ended, Order};
use super::bookkeeping::Account;
use super::config_file::ConfigFile;
use super::config_reading::ConfigReading;
use super::listeners::Listeners;
use super::notify::Notifier;
use super::run::{READY_WITHIN, exclude_other_agents, sleep_until, stop_signal};
use super::{AgentError, FetchSchedule, in_force, logging};
use crate::config::file::{LoadError, Loaded};
use crate::config::{AnyRole, Config};
use crate::reconcile::Cause;
use crate::source::child::Asker;
use crate::state::agent_lock::AgentLock;
use crate::status::control::Asked;
use crate::status::snapshot::VpcStatus;

#[cfg(test)]
mod outage_tests;

/// The result of reading the config file.
type Read = Result<Loaded, LoadError>;

/// The longest time of a pass beyond `[vpc_plane] deadline`: the lock, the source with its retries, and
/// the wait for changes to become visible.
const BESIDE_CALLS: Duration = Duration::from_secs(180);

struct Running {
    since: Instant,
    /// The settings under test, in a dry run before a reload.
    probe: Option<Candidate>,
}

/// The ways to the loop.
struct Channels {
    asked_to: mpsc::Sender<Asked>,
    ended_to: mpsc::UnboundedSender<Ended>,
    read_to: mpsc::UnboundedSender<Read>,
}

struct Agent {
    config: Arc<Config>,
    orders: Sender<Order>,
    /// True at the end of the process and in a pause: no pass runs.
    halt: watch::Sender<bool>,
    running: Option<Running>,
    /// Causes of passes that start at once.
    causes: Vec<Cause>,
    schedule: FetchSchedule,
    retry: Retry,
    resync_at: Instant,
    account: Account,
    /// The start of the time in force, as in the state dir.
    stored_since: Option<i64>,
    vpc: VpcStatus,
    told: Told,
    told_of_source: logging::Told,
    notifier: Notifier,
    watchdog: Option<(Duration, Instant)>,
    listeners: Listeners,
    /// `None` if the state dir has no place for the lock.
    _lock: Option<AgentLock>,
    config_file: ConfigFile,
    reading: ConfigReading<Read>,
    /// Settings of a reload, before their test.
    candidate: Option<Candidate>,
    reloading: bool,
    paused: bool,
    first_pass_over: bool,
    loss: Loss,
    /// Time of READY if no pass comes to a judgement.
    ready_by: Instant,
}

/// Runs the agent until SIGTERM or SIGINT. `asker` queries the sources; `reload` reads the settings
/// again after SIGHUP.
///
/// # Errors
/// The agent can't start; lists and routes stay as they are.
pub async fn run<R>(loaded: Loaded, asker: Asker, reload: R) -> Result<(), AgentError>
where
    R: Fn() -> Read + Clone + Send + 'static,
{
    let mut term = stop_signal(SignalKind::terminate())?;
    let mut interrupt = stop_signal(SignalKind::interrupt())?;
    let mut hangup = stop_signal(SignalKind::hangup())?;
    let (asked_to, mut asked) = mpsc::channel(16);
    let (ended_to, mut ended) = mpsc::unbounded_channel();
    let (read_to, mut read) = mpsc::unbounded_channel();
    let channels = Channels {
        asked_to,
        ended_to,
        read_to,
    };
    let mut agent = Agent::new(loaded, asker, reload, channels)?;
    let mut must_end: Option<Instant> = None;
    loop {
        let now = Instant::now();
        agent.feed_watchdog(now);
        if let Some(by) = must_end {
            if agent.running.is_none() || now >= by {
                return Ok(());
            }
        } else {
            agent.start_what_is_due(now);
        }
        let next = must_end.or_else(|| agent.next_deadline());
        tokio::select! {
            () = sleep_until(next) => {}
            Some(over) = ended.recv() => agent.pass_ended(over),
            Some(asked) = asked.recv() => agent.answer(asked),
            _ = hangup.recv() => agent.reload(),
            Some(read) = read.recv() => agent.config_read(read),
            _ = term.recv() => must_end = Some(agent.stop(must_end)),
            _ = interrupt.recv() => must_end = Some(agent.stop(must_end)),
        }
    }
}

impl Agent {
    fn new(
        loaded: Loaded,
        asker: Asker,
        reload: impl Fn() -> Read + Clone + Send + 'static,
        channels: Channels,
    ) -> Result<Self, AgentError> {
        let Channels {
            asked_to,
            ended_to,
            read_to,
        } = channels;
        let config = Arc::new(loaded.config);
        // First: a second agent must not change anything.
        let mut listeners = Listeners::open(&config.agent, asked_to)?;
        let lock = exclude_other_agents(&config.source.state_dir)?;
        listeners.serve_metrics(&config.agent);
        let (halt, halted) = watch::channel(false);
        let orders = worker::start(asker, halted, ended_to).map_err(AgentError::Thread)?;
        let now = Instant::now();
        let (confirmed, since, _) = in_force::before(&config.source.state_dir);
        let watchdog = Notifier::watchdog_interval().map(|interval| (interval, now + interval));
        Ok(Agent {
            account: Account::new(AnyRole::Vpc, confirmed, since),
            stored_since: since,
            schedule: FetchSchedule::new(config.source.refresh, now),
            resync_at: now + config.agent.resync,
            config_file: ConfigFile::new(loaded.origin).map_err(AgentError::Thread)?,
            config,
            orders,
            halt,
            running: None,
            causes: vec![Cause::Start],
            retry: Retry::default(),
            vpc: VpcStatus::default(),
            told: Told::default(),
            told_of_source: logging::Told::default(),
            notifier: Notifier::default(),
            watchdog,
            listeners,
            _lock: lock,
            reading: ConfigReading::new(reload, read_to),
            candidate: None,
            reloading: false,
            paused: false,
            first_pass_over: false,
            loss: Loss::default(),
            ready_by: now + READY_WITHIN,
        })
    }

    fn start_what_is_due(&mut self, now: Instant) {
        self.end_silent_reading(now);
        if self.running.is_none() {
            if let Some(candidate) = self.candidate.take() {
                self.start_probe(candidate, now);
            } else if let Some(cause) = self.due_cause(now).filter(|_| !self.paused) {
                self.start_pass(cause, now);
            }
        }
        if self.reloading && self.running.is_none() && self.paused {
            // The new settings are valid; the first pass after the pause applies them.
            self.reloading = false;
            self.notifier.ready();
        }
        if self.waits_for_ready() && now >= self.ready_by {
            self.notifier.ready();
        }
    }

    /// True while only the source and EC2 delay READY.
    fn waits_for_ready(&self) -> bool {
        self.first_pass_over && !self.notifier.is_ready()
    }

    /// Pings the watchdog, unless a pass has run for longer than all of its time limits.
    fn feed_watchdog(&mut self, now: Instant) {
        if let Some((interval, next)) = &mut self.watchdog
            && now >= *next
        {
            *next = now + *interval;
            let patience = self.config.vpc_plane.deadline + BESIDE_CALLS;
            let running = self.running.as_ref();
            if running.is_none_or(|running| now.duration_since(running.since) < patience) {
                self.notifier.watchdog();
            }
        }
    }

    fn due_cause(&self, now: Instant) -> Option<Cause> {
        if let Some(cause) = self.causes.first() {
            return Some(*cause);
        }
        // After a failure the source is asked by the next retry: its answer may have been lost.
        let timed = match self.retry.at {
            Some(at) => (at, Cause::Retry),
            None => (self.schedule.due(), Cause::Document),
        };
        let resync = (self.resync_at, Cause::Resync);
        let due = [timed, resync].into_iter().find(|(at, _)| now >= *at);
        due.map(|(_, cause)| cause)
    }

    /// The time of the next pass.
    fn next_pass(&self) -> Instant {
        let timed = self.retry.at.unwrap_or_else(|| self.schedule.due());
        timed.min(self.resync_at)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let mut deadlines: Vec<Option<Instant>> = vec![self.watchdog.map(|(_, next)| next)];
        deadlines.push(self.reading.due());
        if self.waits_for_ready() {
            deadlines.push(Some(self.ready_by));
        }
        if !self.paused && self.running.is_none() {
            deadlines.push(Some(self.next_pass()));
        }
        deadlines.into_iter().flatten().min()
    }

    fn cause(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }
}
