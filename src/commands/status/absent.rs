//! The page without an agent: the state of the kernel and the journal.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::in_kernel::{InKernel, readable};
use super::timer::{self, Timer};
use crate::clock;
use crate::columns::Style;
use crate::commands::boot::SHUT;
use crate::config::file::Loaded;
use crate::config::{Config, Role};
use crate::degraded::{Degradation, merge};
use crate::guard::GuardState;
use crate::journal::{History, Journal, history_json, history_text};
use crate::kernel::Kernel;
use crate::ownership::{Numbers, Ownership};
use crate::plan::text::totals;
use crate::plan::{Action, Plan, Step};
use crate::printable::indented;
use crate::reconcile::{Asking, Firewalls, PassError, examine};
use crate::state::StateFile;
use crate::state::drained;
use crate::state::error::ReadError;
use crate::state::lock;
use crate::state::patience::{exists_in_time, in_time};
use crate::state::store::Store;
use crate::status::control::AskError;
use crate::status::snapshot::HoldStatus;
use crate::status::text::hold::hold as hold_lines;
use crate::status::text::lines::{Lines, painted};
use crate::types::{Family, SyncToken};
use crate::verify::judge_kernel;

/// Passes to show, as many as in a snapshot.
const PASSES: usize = 10;
const EMPTY: &str = "the kernel has no objects of Trailblazer";

/// The state of the host without the agent's answer.
pub(super) struct Absent {
    /// The reason for a missing answer.
    pub error: AskError,
    /// `None` if the kernel can't be read.
    kernel: Option<InKernel>,
    /// The steps of a pass with the stored document; `None` if the comparison failed.
    pending: Option<Plan>,
    document: Option<(SyncToken, String)>,
    hold: Option<HoldStatus>,
    history: History,
    degraded: Vec<Degradation>,
    /// Single passes in place of the agent.
    timer: Option<Timer>,
    pub notes: Vec<String>,
}

/// Reads the kernel, as far as permitted, and the journal. Changes nothing.
pub(super) async fn look(loaded: &Loaded, error: AskError) -> Absent {
    let config = &loaded.config;
    let mut absent = Absent {
        error,
        kernel: None,
        pending: None,
        document: None,
        hold: None,
        history: History::default(),
        degraded: Vec::new(),
        timer: None,
        notes: Vec::new(),
    };
    if let Err(error) = absent.look_at_kernel(config).await {
        absent.notes.push(format!(
            "cannot compare the kernel with the config: {error}"
        ));
    }
    let shut = absent.kernel.as_ref().is_some_and(|kernel| kernel.shut);
    absent.notes.extend(shut.then(|| SHUT.to_owned()));
    absent.read_state_dir(config);
    let mut seen = Vec::new();
    absent.notes.retain(|note| {
        let new = !seen.contains(note);
        seen.push(note.clone());
        new
    });
    absent
}

/// The hold in the guard's memory, with its clock.
fn hold(config: &Config) -> Result<Option<HoldStatus>, ReadError> {
    let store = Store::open(&config.source.state_dir);
    let state: GuardState = match store.read_json(StateFile::Guard) {
        Err(ReadError::Absent { .. }) => return Ok(None),
        read => read?,
    };
    let state = clock::anchor().map_or_else(|| state.clone(), |now| state.rebase(&now));
    let hold = state.hold.as_ref();
    Ok(hold.map(|hold| HoldStatus::of(hold, &config.guard)))
}

impl Absent {
    /// Reads the hold and the journal.
    fn read_state_dir(&mut self, config: &Config) {
        let state_dir = &config.source.state_dir;
        if let Err(silent) = exists_in_time(state_dir) {
            return self.notes.push(silent.to_string());
        }
        match hold(config) {
            Ok(hold) => self.hold = hold,
            Err(error) => self.notes.push(error.to_string()),
        }
        match drained::read(&Store::open(state_dir)) {
            Ok(drains) => self.notes.extend(drains.iter().map(|(gateway, drain)| {
                let since = Timestamp::from_second(drain.since).unwrap_or_default();
                format!(
                    "gateway {gateway} is drained since {since}, asked for by {}",
                    drain.by
                )
            })),
            Err(error) => self.notes.push(error.to_string()),
        }
        match Journal::new(state_dir).read() {
            Ok(history) => {
                let holder = lock::holder(state_dir).ok().flatten();
                let running = holder.map(|holder| holder.pid);
                if self.certainly() {
                    self.timer = Timer::look(timer::RECONCILE, &history, Timestamp::now());
                }
                self.history = history.with_running(running).last(PASSES);
            }
            Err(error) => self.notes.push(error.to_string()),
        }
    }

    /// True if no agent runs; otherwise an agent may run without answering.
    pub(super) fn certainly(&self) -> bool {
        matches!(self.error, AskError::NoAgent { .. })
    }

    /// True if the timer keeps the kernel in sync in place of an agent.
    pub(super) fn is_kept_by_timer(&self) -> bool {
        let on_time = self.timer.as_ref().is_some_and(Timer::is_on_time);
        on_time && self.in_sync() == Some(true) && self.degraded.is_empty()
    }

    async fn look_at_kernel(&mut self, config: &Config) -> Result<(), PassError> {
        let mut kernel = Kernel::open()?;
        let Some(role) = config.role else {
            self.notes.push(
                "cannot compare the kernel with the config: the config has no role; name the config with -c"
                    .to_owned(),
            );
            return self.count(config, &mut kernel);
        };
        match self
            .compare(config, role, Firewalls::Chosen, &mut kernel)
            .await
        {
            Ok(()) => Ok(()),
            // Without privilege or a firewall, routes and rules are still comparable.
            Err(PassError::Firewall(_) | PassError::NoFirewall(_)) => {
                let ignored = Firewalls::Ignored;
                self.compare(config, role, ignored, &mut kernel).await
            }
            Err(error) => {
                self.count(config, &mut kernel)?;
                Err(error)
            }
        }
    }

    /// Counts our objects by tables, protocol and priority alone.
    fn count(&mut self, config: &Config, kernel: &mut Kernel) -> Result<(), PassError> {
        let state_dir = &config.source.state_dir;
        let store = Store::open(state_dir);
        // A pass reports an unreadable file with an error.
        let read = in_time(state_dir, move || store.read_json(StateFile::Numbers));
        let earlier: Vec<Numbers> = read.ok().and_then(Result::ok).unwrap_or_default();
        let ownership = Ownership::new(Numbers::of(config), earlier);
        let observed = kernel.observe(&ownership, &[])?;
        self.kernel = Some(InKernel::of(&observed, &ownership));
        Ok(())
    }

    async fn compare(
        &mut self,
        config: &Config,
        role: Role,
        firewalls: Firewalls,
        kernel: &mut Kernel,
    ) -> Result<(), PassError> {
        let mut examined = examine(config, role, Asking::Nobody, firewalls, kernel).await?;
        let desired = examined.view.settled(kernel, config, role)?;
        let view = &examined.view;
        self.kernel = Some(InKernel::of(&view.observed, &view.ownership));
        let ranges = &examined.judgement.ranges;
        let create_date = ranges.create_date.clone();
        self.document = ranges.sync_token.map(|token| (token, create_date));
        self.notes.extend(examined.notes.texts().map(str::to_owned));
        let verdicts = examined.judgement.verdicts.iter();
        self.notes.extend(verdicts.map(ToString::to_string));
        self.notes
            .extend(examined.complaint.as_ref().map(ToString::to_string));
        self.notes.extend(desired.messages().cloned());
        self.degraded = examined.judgement.degraded.clone();
        merge(&mut self.degraded, desired.degraded.iter().cloned());
        let mut plan = view.plan(kernel, desired.clone())?;
        if !readable(&view.observed) {
            // The plan would add every unread firewall object.
            plan.steps
                .retain(|step| !matches!(step, Step::Firewall { .. }));
        }
        self.notes.append(&mut plan.notes);
        let verdicts = judge_kernel(&view.promise(&desired), kernel)?;
        merge(&mut self.degraded, verdicts.degraded.iter().cloned());
        // Missing objects of ours are pending steps.
        if plan.is_empty() {
            merge(&mut self.degraded, verdicts.mismatches.iter().cloned());
        }
        let exempt = verdicts.exempt.iter().map(ToString::to_string);
        let doubts = verdicts.doubts.iter().map(ToString::to_string);
        self.notes.extend(exempt.chain(doubts));
        self.pending = Some(plan);
        Ok(())
    }

    /// True if a pass with the stored document would change nothing; `None` if the comparison
    /// failed.
    fn in_sync(&self) -> Option<bool> {
        let plan = self.pending.as_ref()?;
        Some(plan.is_empty() && plan.conflicts.is_empty())
    }

    fn sees_firewall(&self) -> bool {
        let kernel = self.kernel.as_ref();
        kernel.is_some_and(|kernel| kernel.firewalls.is_some())
    }

    fn kernel_text(&self) -> String {
        let nothing = self.kernel.as_ref().is_some_and(InKernel::is_empty);
        match (&self.pending, self.in_sync()) {
            (_, Some(true)) if self.document.is_none() => {
                "in sync with the settings; no document is in force".to_owned()
            }
            (_, Some(true)) if self.sees_firewall() => {
                "in sync with the last known good".to_owned()
            }
            (_, Some(true)) => {
                "in sync with the last known good, firewall not checked: run as root to include it"
                    .to_owned()
            }
            (Some(plan), _) if !plan.conflicts.is_empty() => format!(
                "CONFLICT: {}",
                plan.conflicts
                    .iter()
                    .map(|conflict| conflict.message.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
            (Some(plan), _) => format!(
                "{}: {}; see `trailblazer reconcile --dry-run`",
                if nothing {
                    EMPTY
                } else {
                    "DIFFERS from the last known good"
                },
                totals(plan)
            ),
            (None, _) if nothing => EMPTY.to_owned(),
            (None, _) => "not compared".to_owned(),
        }
    }

    /// The headline while the timer runs passes, and something is wrong.
    fn word(&self) -> &'static str {
        match self.in_sync() {
            Some(true) => "DEGRADED",
            Some(false) => "NOT IN SYNC",
            None => "UNKNOWN",
        }
    }

    pub(super) fn to_text(&self, style: Style) -> String {
        let (colour, word, why) = match (&self.error, &self.timer) {
            (_, Some(timer)) if self.is_kept_by_timer() => ("32", "IN SYNC", timer.text()),
            (_, Some(timer)) if timer.is_on_time() => ("31", self.word(), timer.text()),
            (_, Some(timer)) => ("31", "NO PASSES", timer.text()),
            (AskError::NoAgent { path }, None) => (
                "31",
                "NOT RUNNING",
                format!("no process listens at {}", path.display()),
            ),
            (error, None) => ("31", "NO ANSWER", error.to_string()),
        };
        let why = indented(&why, 2);
        let degraded = match self.degraded.first() {
            Some(first) => format!("\n{} {first}", painted(style, "31", "DEGRADED")),
            None => String::new(),
        };
        let headline = format!(
            "{} {why}{degraded}\nState of the kernel and the journal at {:.0}:\n\n",
            painted(style, colour, word),
            Timestamp::now(),
        );
        let mut lines = Lines::after(headline, style);
        lines.line(self.in_sync() != Some(true), "kernel", &self.kernel_text());
        let document = match &self.document {
            Some((token, date)) => format!("sync token {token}, published {date}"),
            None => "none in force".to_owned(),
        };
        lines.line(self.document.is_none(), "document", &document);
        let now = Timestamp::now().as_second();
        hold_lines(self.hold.as_ref(), now, &mut lines);
        if let Some(kernel) = &self.kernel {
            let InKernel { routes, .. } = kernel;
            let (ipv4, ipv6) = (routes.get(Family::Ipv4), routes.get(Family::Ipv6));
            let text = format!("ipv4 {ipv4}, ipv6 {ipv6} in the bypass table");
            lines.calm("routes", &text);
            lines.calm("rules", &kernel.rules.to_string());
            let firewalls = match &kernel.firewalls {
                None => "not checked".to_owned(),
                Some(kinds) if kinds.is_empty() => "no rules of Trailblazer".to_owned(),
                Some(kinds) => kinds.join(", "),
            };
            lines.calm("firewall", &firewalls);
        }
        for missing in &self.degraded {
            lines.worrying("degraded", &missing.to_string());
        }
        for note in &self.notes {
            lines.calm("note", note);
        }
        format!("{}\n{}", lines.text, history_text(&self.history))
    }

    /// The object of `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let history = history_json(&self.history);
        let pending = self.pending.as_ref().map(|plan| {
            let totals = plan.totals();
            let of = |action| totals.get(&action).copied().unwrap_or(0);
            json!({
                "add": of(Action::Add),
                "replace": of(Action::Replace),
                "delete": of(Action::Delete),
            })
        });
        json!({
            "agent": if self.certainly() { "not_running" } else { "unreachable" },
            "timer": self.timer.as_ref().map(Timer::text),
            "error": self.error.to_string(),
            "in_sync": self.in_sync(),
            "pending": pending,
            "degraded": self.degraded,
            "conflicts": self.pending.as_ref().map(|plan| {
                plan.conflicts.iter().map(|c| c.message.as_str()).collect::<Vec<_>>()
            }),
            "document": self.document.as_ref().map(|(token, date)| json!({
                "sync_token": token,
                "create_date": date,
            })),
            "hold": self.hold,
            "routes": self.kernel.as_ref().map(|kernel| &kernel.routes),
            "rules": self.kernel.as_ref().map(|kernel| kernel.rules),
            "firewalls": self.kernel.as_ref().map(|kernel| &kernel.firewalls),
            "passes": history["passes"],
            "damaged": history["damaged"],
            "notes": self.notes,
        })
    }
}
