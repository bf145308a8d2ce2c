//! The loop: it decides what runs when, and waits for nobody but events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::account::Account;
use super::notify::Notifier;
use super::shared::{Shared, locked};
use super::traffic::{self, Meter};
use super::worker::{Ended, Order};
use super::{AgentError, FetchSchedule, Settings, Settle, tell, watch, worker};
use crate::config::Config;
use crate::facts::HostFacts;
use crate::firewall::BackendKind;
use crate::ownership::{Numbers, Ownership};
use crate::plan::{ObjectKey, Step};
use crate::reconcile::{Fetch, Gathered, InForce, Options, Outcome, gather};
use crate::source::cache::Store;
use crate::source::random;
use crate::status::control::{
    Asked, ControlSocket, MetricsServer, Reply, Request, serve_metrics, serve_socket,
};
use crate::status::snapshot::{Snapshot, State};

/// A pass that failed is tried again after this, doubling.
const RETRY: Duration = Duration::from_secs(1);
/// But no later than this: an operator who has mended the cause shall not wait for long.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// iptables-legacy tells nobody of its changes: it is looked at this often.
const LEGACY_CHECK: Duration = Duration::from_secs(60);
/// SIGTERM ends the process within a second, whatever a pass is doing: the rest of that second is
/// for the way out, which takes 150 ms with 100,000 prefixes in memory.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// A pass this long after a change of a link still mends what went with it.
const LINK_SETTLES: Duration = Duration::from_secs(2);
/// Steps that were put back and wait for the journal.
const KEPT_STEPS: usize = crate::journal::MAX_LISTED;

/// A fetch that is over.
struct Fetched {
    gathered: Gathered,
    took: Duration,
}

/// A pass that runs.
struct Running {
    since: Instant,
    /// What came of the fetch that it goes by took this long.
    fetch_took: Option<Duration>,
    /// It only tries these settings.
    probe: Option<Settings>,
}

/// The loop's state.
pub(super) struct Agent<R> {
    settings: Settings,
    reload: R,
    shared: Arc<Shared>,
    orders: Sender<Order>,
    running: Option<Running>,
    /// Causes of passes that don't wait for events to settle.
    causes: Vec<&'static str>,
    /// What the kernel's notifications said since the last pass, in words.
    heard: Vec<String>,
    gathered: Option<(Gathered, Duration)>,
    mended: Vec<Step>,
    settle: Settle,
    schedule: FetchSchedule,
    fetching: bool,
    fetched_to: mpsc::UnboundedSender<Fetched>,
    /// Failed passes in a row, and when the next try is due.
    failures: u32,
    retry_at: Option<Instant>,
    resync_at: Instant,
    account: Account,
    meter: Meter,
    notifier: Notifier,
    watchdog: Option<(Duration, Instant)>,
    asked_to: mpsc::Sender<Asked>,
    control: Option<ControlSocket>,
    metrics: Option<MetricsServer>,
    facts: HostFacts,
    first_pass_over: bool,
    first_fetch_over: bool,
    /// When a link, an address or a default route changed last.
    link_changed: Option<Instant>,
    probe: Option<Settings>,
    reloading: bool,
    told: tell::Told,
}

fn stop_signal(kind: SignalKind) -> Result<Signal, AgentError> {
    signal(kind).map_err(AgentError::Signals)
}

/// Runs until SIGTERM or SIGINT. `reload` reads the settings again, for SIGHUP.
///
/// # Errors
/// It can't start, or can't go on: the routes stay as they are.
pub async fn run<R>(settings: Settings, reload: R) -> Result<(), AgentError>
where
    R: Fn() -> Result<Settings, String>,
{
    let mut term = stop_signal(SignalKind::terminate())?;
    let mut interrupt = stop_signal(SignalKind::interrupt())?;
    let mut hangup = stop_signal(SignalKind::hangup())?;
    let (asked_to, mut asked) = mpsc::channel(16);
    let (ended_to, mut ended) = mpsc::unbounded_channel();
    let (fetched_to, mut fetched) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let mut agent = Agent::new(settings, reload, &shared, asked_to, ended_to, fetched_to)?;
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
            _ = term.recv() => must_end = Some(agent.stop(must_end)),
            _ = interrupt.recv() => must_end = Some(agent.stop(must_end)),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl<R: Fn() -> Result<Settings, String>> Agent<R> {
    fn new(
        settings: Settings,
        reload: R,
        shared: &Arc<Shared>,
        asked_to: mpsc::Sender<Asked>,
        ended_to: mpsc::UnboundedSender<Ended>,
        fetched_to: mpsc::UnboundedSender<Fetched>,
    ) -> Result<Self, AgentError> {
        let config = &settings.config;
        // First: a second agent must not touch anything.
        let control = tell::or_warn(serve_socket(&config.agent.socket, asked_to.clone()))?;
        let metrics = metrics(config, &asked_to);
        // Before the first pass looks: what changes after that look is heard.
        let tables = Ownership::new(Numbers::of(config), []).tables();
        let buffer = usize::try_from(config.agent.event_buffer).unwrap_or(usize::MAX);
        let state_dir = config.source.state_dir.clone();
        watch::start(Arc::clone(shared), &tables, buffer, state_dir)?;
        let orders = worker::start(Arc::clone(shared), ended_to).map_err(AgentError::Thread)?;
        let now = Instant::now();
        let store = Store::open(&config.source.state_dir);
        let confirmed = store.confirmed_at();
        let watchdog = Notifier::watchdog_interval().map(|interval| (interval, now + interval));
        Ok(Agent {
            account: Account::new(&settings, confirmed),
            meter: Meter::new(store),
            schedule: FetchSchedule::new(config.source.refresh, now),
            resync_at: now + config.agent.resync,
            settings,
            reload,
            shared: Arc::clone(shared),
            orders,
            running: None,
            causes: vec!["start"],
            heard: Vec::new(),
            gathered: None,
            mended: Vec::new(),
            settle: Settle::new(),
            fetching: false,
            fetched_to,
            failures: 0,
            retry_at: None,
            notifier: Notifier::default(),
            watchdog,
            asked_to,
            control,
            metrics,
            facts: HostFacts::default(),
            first_pass_over: false,
            first_fetch_over: false,
            link_changed: None,
            probe: None,
            reloading: false,
            told: tell::Told::default(),
        })
    }

    fn start_what_is_due(&mut self, now: Instant) {
        self.feed_watchdog(now);
        if self.shared.is_stopping() {
            return;
        }
        if self.running.is_none() {
            if let Some(settings) = self.probe.take() {
                self.start_probe(settings, now);
            } else if !self.shared.is_paused()
                && let Some(cause) = self.due_cause(now)
            {
                self.start_pass(cause, now);
            }
        }
        let may_fetch = self.first_pass_over && !self.fetching && !self.shared.is_paused();
        if may_fetch && self.gathered.is_none() && now >= self.schedule.due() {
            self.start_fetch(now);
        }
    }

    /// Fed while the loop goes round and no pass is stuck: one that takes longer than the whole
    /// patience of the watchdog is.
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

    fn due_cause(&mut self, now: Instant) -> Option<&'static str> {
        let past = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if let Some(cause) = self.causes.first() {
            return Some(cause);
        }
        if past(self.settle.due()) {
            return Some("drift");
        }
        if past(self.retry_at) {
            return Some("retry");
        }
        if past(locked(&self.shared.limiter).next_release()) {
            return Some("conflict");
        }
        (now >= self.resync_at).then_some("resync")
    }

    fn next_deadline(&self) -> Option<Instant> {
        let mut deadlines: Vec<Option<Instant>> = vec![self.watchdog.map(|(_, next)| next)];
        if !self.shared.is_paused() {
            if self.running.is_none() {
                deadlines.push(self.settle.due());
                deadlines.push(self.retry_at);
                deadlines.push(locked(&self.shared.limiter).next_release());
                deadlines.push(Some(self.resync_at));
            }
            if !self.fetching && self.first_pass_over {
                deadlines.push(Some(self.schedule.due()));
            }
        }
        deadlines.into_iter().flatten().min()
    }

    fn start_pass(&mut self, cause: &'static str, now: Instant) {
        self.causes.clear();
        let withheld: BTreeSet<_> = locked(&self.shared.limiter)
            .exhausted(now)
            .cloned()
            .collect();
        let options = Options {
            cause: cause.to_owned(),
            withheld,
            mended: std::mem::take(&mut self.mended),
            quiet: true,
            watched: true,
            ..Options::default()
        };
        let (gathered, took) = match self.gathered.take() {
            Some((gathered, took)) => (gathered, Some(took)),
            None => (Gathered::default(), None),
        };
        self.send(options, gathered, took, None, now);
    }

    fn start_probe(&mut self, settings: Settings, now: Instant) {
        let options = Options {
            cause: "reload".to_owned(),
            dry_run: true,
            ..Options::default()
        };
        self.send(options, Gathered::default(), None, Some(settings), now);
    }

    fn send(
        &mut self,
        options: Options,
        gathered: Gathered,
        fetch_took: Option<Duration>,
        probe: Option<Settings>,
        now: Instant,
    ) {
        let settings = probe.as_ref().unwrap_or(&self.settings);
        let order = Order {
            config: Arc::clone(&settings.config),
            role: settings.role,
            options,
            gathered,
        };
        if self.orders.send(order).is_err() {
            tracing::error!("the worker has ended: no pass can run; restart the agent");
            return;
        }
        self.running = Some(Running {
            since: now,
            fetch_took,
            probe,
        });
    }

    fn start_fetch(&mut self, now: Instant) {
        self.schedule.started(now);
        self.fetching = true;
        let (config, role) = (Arc::clone(&self.settings.config), self.settings.role);
        let (facts, to_loop) = (self.facts.clone(), self.fetched_to.clone());
        tokio::spawn(async move {
            let gathered = gather(&config, role, &facts).await;
            let took = now.elapsed();
            // The loop has ended: nobody asks any more.
            let _ = to_loop.send(Fetched { gathered, took });
        });
    }

    fn fetch_ended(&mut self, over: Fetched) {
        self.fetching = false;
        self.gathered = Some((over.gathered, over.took));
        self.cause("document");
    }

    fn cause(&mut self, cause: &'static str) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    /// The kernel has told something.
    fn noticed(&mut self) -> Result<(), AgentError> {
        let noticed = std::mem::take(&mut *locked(&self.shared.noticed));
        if let Some(why) = noticed.deaf {
            return Err(AgentError::Deaf(why));
        }
        self.account.noticed(&noticed);
        if let Some(at) = noticed.mended_at {
            self.settle.mended(at);
        }
        if let Some(at) = noticed.event {
            self.settle.event(at);
        }
        self.link_changed = noticed.link_changed.or(self.link_changed);
        if noticed.way_changed && self.schedule.failures_in_a_row() > 0 {
            self.schedule.bring_forward(Instant::now());
        }
        for key in &noticed.refused {
            self.fought(key);
        }
        let room = KEPT_STEPS.saturating_sub(self.mended.len());
        self.mended.extend(noticed.steps.into_iter().take(room));
        self.told.put_back += noticed.steps_total;
        for cause in noticed.causes {
            if self.heard.len() < 8 && !self.heard.contains(&cause) {
                self.heard.push(cause);
            }
        }
        Ok(())
    }

    /// An object was put back too often, and its pause begins.
    fn fought(&mut self, key: &ObjectKey) {
        let culprit = self.shared.culprit(key);
        tell::conflict(key, &culprit);
        self.account.fought();
        if self.account.state() == State::InForce {
            let reason = format!("{key} is changed again and again by {culprit}");
            self.account.enter(State::Degraded, Some(reason));
        }
    }

    fn pass_ended(&mut self, ended: Ended) {
        let Some(running) = self.running.take() else {
            return;
        };
        if let Some(settings) = running.probe {
            return self.probed(settings, &ended);
        }
        let report = &ended.report;
        self.settle.passed(ended.started, ended.ended);
        self.resync_at = ended.ended + self.resync_interval(report.backend.as_ref());
        self.count_repairs(&ended);
        self.account.passed(&ended);
        self.account.guarded(report, &self.settings);
        if let Some(took) = running.fetch_took {
            self.judge_fetch(&report.fetch, took, ended.ended);
        }
        if let Some(in_force) = &ended.in_force {
            self.take_facts(in_force);
        }
        if let Some(backend) = &report.backend {
            self.meter.use_backend(backend.kind);
            // Each pass reads: what somebody flushes next has been counted until then.
            self.meter.read();
        }
        match report.error {
            None => (self.failures, self.retry_at) = (0, None),
            // Another document is another fetch's to bring.
            Some(_) if report.without_document => self.retry_at = None,
            Some(_) => {
                let pause = RETRY.saturating_mul(2u32.saturating_pow(self.failures.min(6)));
                self.failures += 1;
                self.retry_at = Some(ended.ended + pause.min(LONGEST_RETRY));
            }
        }
        self.enter_state(&ended);
        self.told.pass(&ended, std::mem::take(&mut self.heard));
        self.told.age(&self.account, &self.settings);
        self.first_pass_over = true;
        let ready = self.account.state() == State::InForce || self.first_fetch_over;
        if std::mem::take(&mut self.reloading) || (ready && !self.notifier.is_ready()) {
            self.notifier.ready();
        }
        let status = tell::status_line(&ended.report, &self.account);
        self.notifier.status(status);
    }

    fn take_facts(&mut self, in_force: &InForce) {
        self.facts = in_force.facts.clone();
        // Another table of routes may be huge, and nobody asks about it here.
        self.facts
            .main_routes
            .retain(|route| route.dst.prefix_len() == 0);
    }

    /// Repairs by a pass count as the watcher's do; what was left alone begins its pause.
    fn count_repairs(&mut self, ended: &Ended) {
        let report = &ended.report;
        let mut begins = Vec::new();
        // What goes with a link, the kernel takes: nobody fights us.
        let with_link = self
            .link_changed
            .is_some_and(|at| ended.started < at + LINK_SETTLES);
        let goes_with_link =
            |key: &ObjectKey| matches!(key, ObjectKey::Route(_) | ObjectKey::Nexthop(_));
        {
            let mut limiter = locked(&self.shared.limiter);
            limiter.passed(ended.started);
            let changed = ended.drift && report.outcome == Outcome::Changed;
            for key in report.plan.steps.iter().map(Step::key) {
                if changed && !(with_link && goes_with_link(&key)) {
                    limiter.allow(&key, ended.ended);
                }
            }
            for key in &report.plan.withheld {
                let known = limiter.is_paused(key, ended.started);
                limiter.allow(key, ended.ended);
                if !known {
                    begins.push(key);
                }
            }
        }
        for key in begins {
            self.fought(key);
        }
    }

    fn judge_fetch(&mut self, fetch: &Fetch, took: Duration, now: Instant) {
        self.first_fetch_over = true;
        self.account.fetched(fetch, took);
        let before = self.schedule.breaker();
        match fetch {
            Fetch::Rejected(_) | Fetch::Failed(_) => self.schedule.failed(now, random()),
            _ => self.schedule.succeeded(now, random()),
        }
        self.told.fetch(fetch, before, &self.schedule, now);
    }

    fn enter_state(&mut self, ended: &Ended) {
        if self.shared.is_stopping() {
            return;
        }
        let report = &ended.report;
        let fought: Vec<String> = locked(&self.shared.limiter)
            .paused(ended.ended)
            .map(|(key, ..)| key.to_string())
            .collect();
        let (state, reason) = if self.shared.is_paused() {
            (State::Paused, self.account.reason().map(str::to_owned))
        } else if let Some(error) = &report.error {
            let state = match self.account.state() {
                State::Starting => State::Starting,
                _ => State::Degraded,
            };
            (state, Some(error.clone()))
        } else if !fought.is_empty() {
            let reason = format!("other programs keep changing {}", fought.join(", "));
            (State::Degraded, Some(reason))
        } else {
            (State::InForce, None)
        };
        self.account.enter(state, reason);
    }

    /// Only iptables-legacy needs a look by the clock, and only where it is in use.
    fn resync_interval(&self, backend: Option<&crate::reconcile::BackendChoice>) -> Duration {
        let resync = self.settings.config.agent.resync;
        match backend {
            Some(backend)
                if backend.kind == BackendKind::Iptables && backend.reason.contains("legacy") =>
            {
                resync.min(LEGACY_CHECK)
            }
            _ => resync,
        }
    }

    fn answer(&mut self, asked: Asked) {
        let reply = match asked.request {
            Request::Status => Reply::Status(Box::new(self.snapshot())),
            Request::Kick => {
                if self.shared.is_paused() {
                    tracing::info!("kicked: the pause is over");
                }
                self.shared.resume();
                self.cause("kick");
                if !self.fetching {
                    self.schedule.bring_forward(Instant::now());
                }
                Reply::Done
            }
            Request::Pause { by } => {
                tracing::warn!(
                    "paused by {by}: nothing is put back until `trailblazer kick` or a restart"
                );
                self.shared.pause();
                let reason = format!("paused by {by} until `trailblazer kick` or a restart");
                self.account.enter(State::Paused, Some(reason.clone()));
                self.notifier.status(reason);
                Reply::Done
            }
        };
        // Whoever asked may be gone.
        let _ = asked.answer.send(reply);
    }

    fn snapshot(&mut self) -> Snapshot {
        let traffic = self.meter.read();
        let price = self.settings.config.agent.nat_price_per_gb;
        Snapshot {
            saved_dollars: traffic.as_ref().map(|all| traffic::saved(all, price)),
            traffic,
            ..self
                .account
                .snapshot(&self.settings, &self.schedule, self.fetching, &self.shared)
        }
    }

    /// SIGHUP: the settings are read and tried before they replace the old ones.
    fn reload(&mut self) {
        self.notifier.reloading();
        match (self.reload)() {
            Ok(settings) => self.probe = Some(settings),
            Err(why) => {
                tracing::error!("the new settings are refused, the old ones stay: {why}");
                self.notifier.ready();
            }
        }
    }

    fn probed(&mut self, settings: Settings, ended: &Ended) {
        let report = &ended.report;
        if let (Some(error), false) = (&report.error, report.without_document) {
            tracing::error!("the new settings are refused, the old ones stay: {error}");
            self.notifier.ready();
            return;
        }
        let now = Instant::now();
        let old = std::mem::replace(&mut self.settings, settings);
        let (old, new) = (&old.config, Arc::clone(&self.settings.config));
        self.schedule.set_refresh(new.source.refresh, now, random());
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
                "[source] state_dir and [agent] event_buffer take effect in full at the next restart"
            );
        }
        self.reloading = true;
        tracing::info!("the new settings are in force from the next pass on");
        self.cause("config");
    }

    /// The way out: between two steps of a pass, at the latest within a second.
    fn stop(&mut self, already: Option<Instant>) -> Instant {
        if let Some(by) = already {
            return by;
        }
        tracing::info!("stopping: routes, rules and firewall stay as they are");
        self.notifier.stopping();
        self.shared.stop();
        let reason = "told to stop; what is in force stays";
        self.account.enter(State::Stopping, Some(reason.to_owned()));
        Instant::now() + STOP_WITHIN
    }
}

fn metrics(config: &Config, asked_to: &mpsc::Sender<Asked>) -> Option<MetricsServer> {
    match serve_metrics(config.agent.metrics?, asked_to.clone()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}
