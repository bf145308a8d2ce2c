//! The agent's loop: starts passes and fetches when due, and otherwise waits for events only.

mod drain;
mod passes;
mod polls;
mod reload;
mod requests;
mod retry;
mod ways;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::retry::Retry;
use super::bookkeeping::Account;
use super::config_file::ConfigFile;
use super::config_reading::ConfigReading;
use super::drains::{Accessed, Drains};
use super::hops::Hop;
use super::listeners::Listeners;
use super::meter::Meter;
use super::notify::Notifier;
use super::prober::Prober;
use super::shared::{Shared, locked};
use super::worker::{Ended, Order};
use super::{
    AgentError, Debounce, FetchSchedule, Settings, in_force, logging, saved_rulesets, watch, worker,
};
use crate::config::file::LoadError;
use crate::health::{Health, WayId};
use crate::journal::WayChange;
use crate::ownership::{Numbers, Ownership};
use crate::plan::Step;
use crate::reconcile::{Cause, Gathered};
use crate::source::child::Asker;
use crate::state::agent_lock::{AgentLock, AgentLockError};
use crate::state::store::Store;
use crate::status::control::Asked;
use crate::types::Family;

use reload::Candidate;

/// The result of reading the config file.
type Read = Result<Settings, LoadError>;

/// READY is sent after this time even without a fetch. Sources that hang are tried one after the
/// other, and the sum of their timeouts may exceed the unit's `TimeoutStartSec`: systemd would
/// restart the agent again and again.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);

struct EndedFetch {
    by: tokio::task::Id,
    gathered: Gathered,
    took: Duration,
}

struct Running {
    since: Instant,
    /// Duration of the fetch whose result the pass uses.
    fetch_took: Option<Duration>,
    /// The settings under test, in a dry run before a reload.
    probe: Option<Candidate>,
    /// The ways out of use for this pass.
    health: Health,
    /// The changes of the use of ways that the pass writes to the journal.
    ways: Vec<WayChange>,
}

/// The ways to the loop.
struct Channels {
    asked_to: mpsc::Sender<Asked>,
    ended_to: mpsc::UnboundedSender<Ended>,
    fetched_to: mpsc::UnboundedSender<EndedFetch>,
    read_to: mpsc::UnboundedSender<Read>,
    drained_to: mpsc::UnboundedSender<Accessed>,
}

pub(super) struct Agent {
    settings: Settings,
    asker: Asker,
    shared: Arc<Shared>,
    orders: Sender<Order>,
    running: Option<Running>,
    /// Causes of passes that start without a debounce.
    causes: Vec<Cause>,
    /// Causes in the kernel's notifications since the last pass, for the log.
    heard: Vec<String>,
    gathered: Option<(Gathered, Duration)>,
    repaired: Vec<Step>,
    debounce: Debounce,
    schedule: FetchSchedule,
    fetching: Option<AbortHandle>,
    fetched_to: mpsc::UnboundedSender<EndedFetch>,
    retry: Retry,
    resync_at: Instant,
    account: Account,
    /// The start of the time in force, as in the state dir.
    stored_since: Option<i64>,
    /// The families whose bypass path is out of use, as in the state dir.
    stored_diverted: BTreeSet<Family>,
    meter: Meter,
    prober: Prober,
    notifier: Notifier,
    watchdog: Option<(Duration, Instant)>,
    listeners: Listeners,
    /// `None` if the state dir has no place for the lock.
    _lock: Option<AgentLock>,
    firewall_poll: Option<watch::Poll>,
    foreign_poll: Option<watch::Poll>,
    gateway_poll: Option<watch::Poll>,
    own_networks: Vec<IpNet>,
    gateways: Vec<Hop>,
    drains: Drains,
    first_pass_over: bool,
    first_fetch_over: bool,
    /// Time of READY if no source answers.
    ready_by: Instant,
    /// Time of the last change of a link, an address or a default route.
    link_changed: Option<Instant>,
    config_file: ConfigFile,
    reading: ConfigReading<Read>,
    /// Settings of a reload, before their test.
    candidate: Option<Candidate>,
    reloading: bool,
    told: logging::Told,
}

pub(super) fn stop_signal(kind: SignalKind) -> Result<Signal, AgentError> {
    signal(kind).map_err(AgentError::Signals)
}

/// Runs the agent until SIGTERM or SIGINT. `asker` queries the sources; `reload` reads the settings
/// again after SIGHUP.
///
/// # Errors
/// The agent can't start or can't continue; routes, rules and firewall stay as they are.
pub async fn run<R>(settings: Settings, asker: Asker, reload: R) -> Result<(), AgentError>
where
    R: Fn() -> Read + Clone + Send + 'static,
{
    let mut term = stop_signal(SignalKind::terminate())?;
    let mut interrupt = stop_signal(SignalKind::interrupt())?;
    let mut hangup = stop_signal(SignalKind::hangup())?;
    let (asked_to, mut asked) = mpsc::channel(16);
    let (ended_to, mut ended) = mpsc::unbounded_channel();
    let (fetched_to, mut fetched) = mpsc::unbounded_channel();
    let (read_to, mut read) = mpsc::unbounded_channel();
    let (drained_to, mut drained) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let channels = Channels {
        asked_to,
        ended_to,
        fetched_to,
        read_to,
        drained_to,
    };
    let mut agent = Agent::new(settings, asker, reload, &shared, channels)?;
    let mut must_end: Option<Instant> = None;
    loop {
        agent.start_what_is_due(Instant::now());
        if let Some(by) = must_end
            && (agent.running.is_none() || Instant::now() >= by)
        {
            return Ok(());
        }
        let next = must_end.or_else(|| agent.next_deadline());
        tokio::select! {
            () = sleep_until(next) => {}
            Some(over) = ended.recv() => agent.pass_ended(over),
            Some(over) = fetched.recv() => agent.fetch_ended(over),
            () = shared.wake.notified() => agent.noticed()?,
            Some(asked) = asked.recv() => agent.answer(asked),
            _ = hangup.recv() => agent.reload(),
            Some(read) = read.recv() => agent.config_read(read),
            Some(over) = drained.recv() => agent.drains_accessed(over),
            _ = term.recv() => must_end = Some(agent.stop(must_end)),
            _ = interrupt.recv() => must_end = Some(agent.stop(must_end)),
        }
    }
}

/// Takes the agent's lock of the state dir. A disk fault is a warning: the egress path must not
/// depend on a disk.
pub(super) fn exclude_other_agents(state_dir: &Path) -> Result<Option<AgentLock>, AgentLockError> {
    match AgentLock::acquire(state_dir) {
        Ok(lock) => Ok(Some(lock)),
        Err(held @ AgentLockError::Held { .. }) => Err(held),
        Err(AgentLockError::State(error)) => {
            tracing::warn!("{error}; a second agent on this state directory stays unnoticed");
            Ok(None)
        }
    }
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Agent {
    fn new(
        settings: Settings,
        asker: Asker,
        reload: impl Fn() -> Read + Clone + Send + 'static,
        shared: &Arc<Shared>,
        channels: Channels,
    ) -> Result<Self, AgentError> {
        let Channels {
            asked_to,
            ended_to,
            fetched_to,
            read_to,
            drained_to,
        } = channels;
        let config = &settings.config;
        // First: a second agent must not change anything.
        let mut listeners = Listeners::open(&config.agent, asked_to)?;
        let lock = exclude_other_agents(&config.source.state_dir)?;
        listeners.serve_metrics(&config.agent);
        // Before the first pass reads the kernel: no later change is missed.
        let tables = Ownership::new(Numbers::of(config), []).tables();
        let buffer = usize::try_from(config.agent.event_buffer).unwrap_or(usize::MAX);
        let (state_dir, role) = (config.source.state_dir.clone(), settings.role);
        watch::start(Arc::clone(shared), &tables, buffer, state_dir, role)?;
        saved_rulesets::follow(Arc::clone(shared));
        let orders = worker::start(Arc::clone(shared), ended_to).map_err(AgentError::Thread)?;
        let now = Instant::now();
        let store = Store::open(&config.source.state_dir);
        let (confirmed, since, health) = in_force::before(&config.source.state_dir);
        let stored_diverted = health.out().map(WayId::family).collect();
        *locked(&shared.health) = health;
        let watchdog = Notifier::watchdog_interval().map(|interval| (interval, now + interval));
        Ok(Agent {
            account: Account::new(settings.role, confirmed, since),
            stored_since: since,
            stored_diverted,
            drains: Drains::read(&config.source.state_dir, drained_to),
            meter: Meter::start(store).map_err(AgentError::Thread)?,
            prober: Prober::start(Arc::clone(shared)).map_err(AgentError::Thread)?,
            schedule: FetchSchedule::new(config.source.refresh, now),
            resync_at: now + config.agent.resync,
            config_file: ConfigFile::new(settings.origin.clone()).map_err(AgentError::Thread)?,
            settings,
            asker,
            shared: Arc::clone(shared),
            orders,
            running: None,
            causes: vec![Cause::Start],
            heard: Vec::new(),
            gathered: None,
            repaired: Vec::new(),
            debounce: Debounce::new(),
            fetching: None,
            fetched_to,
            retry: Retry::default(),
            notifier: Notifier::default(),
            watchdog,
            listeners,
            _lock: lock,
            firewall_poll: None,
            foreign_poll: None,
            gateway_poll: None,
            own_networks: Vec::new(),
            gateways: Vec::new(),
            first_pass_over: false,
            first_fetch_over: false,
            ready_by: now + READY_WITHIN,
            link_changed: None,
            reading: ConfigReading::new(reload, read_to),
            candidate: None,
            reloading: false,
            told: logging::Told::default(),
        })
    }

    fn start_what_is_due(&mut self, now: Instant) {
        self.feed_watchdog(now);
        if self.shared.is_stopping() {
            return;
        }
        self.end_silent_reading(now);
        self.drains.retry(now);
        if self.running.is_none() {
            if let Some(candidate) = self.candidate.take() {
                self.start_probe(candidate, now);
            } else if !self.shared.is_paused()
                && let Some(cause) = self.due_cause(now)
            {
                self.start_pass(cause, now);
            }
        }
        if self.reloading && self.running.is_none() && self.shared.is_paused() {
            // The new settings are valid; the first pass after the pause applies them.
            self.reloading = false;
            self.notifier.ready();
        }
        if self.waits_for_ready() && now >= self.ready_by {
            self.notifier.ready();
        }
        if self.may_fetch() && now >= self.schedule.due() {
            self.start_fetch(now);
        }
    }

    /// False while an answer waits for its pass: a pass that waits for the lock must not turn the
    /// due fetch into a busy loop.
    fn may_fetch(&self) -> bool {
        self.first_pass_over
            && self.fetching.is_none()
            && self.gathered.is_none()
            && !self.shared.is_paused()
    }

    /// True while only the sources delay READY. A first pass that hangs delays READY without limit.
    fn waits_for_ready(&self) -> bool {
        self.first_pass_over && !self.notifier.is_ready()
    }

    /// Pings the watchdog unless a pass has been running for longer than the watchdog's timeout.
    fn feed_watchdog(&mut self, now: Instant) {
        if let Some((interval, next)) = &mut self.watchdog
            && now >= *next
        {
            *next = now + *interval;
            let patience = *interval * 2;
            let running = self.running.as_ref();
            if running.is_none_or(|running| now.duration_since(running.since) < patience) {
                self.notifier.watchdog();
            }
        }
    }

    fn due_cause(&self, now: Instant) -> Option<Cause> {
        let past = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if let Some(cause) = self.causes.first() {
            return Some(*cause);
        }
        if past(self.debounce.due()) {
            return Some(Cause::Drift);
        }
        if past(self.retry.at) {
            return Some(Cause::Retry);
        }
        if past(self.conflict_due()) {
            return Some(Cause::Conflict);
        }
        (now >= self.resync_at).then_some(Cause::Resync)
    }

    /// The next pass for an object in conflict: the end of a pause, or of a conflict without pauses.
    fn conflict_due(&self) -> Option<Instant> {
        let release = locked(&self.shared.limiter).next_release();
        let end = locked(&self.shared.repair_log).next_end();
        release.into_iter().chain(end).min()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let mut deadlines: Vec<Option<Instant>> = vec![self.watchdog.map(|(_, next)| next)];
        deadlines.push(self.reading.due());
        deadlines.push(self.drains.due());
        if self.waits_for_ready() {
            deadlines.push(Some(self.ready_by));
        }
        if !self.shared.is_paused() && self.running.is_none() {
            deadlines.push(self.debounce.due());
            deadlines.push(self.retry.at);
            deadlines.push(self.conflict_due());
            deadlines.push(Some(self.resync_at));
        }
        if self.may_fetch() {
            deadlines.push(Some(self.schedule.due()));
        }
        deadlines.into_iter().flatten().min()
    }
}
