//! Plan, apply, verify; and back where that doesn't end as promised.

use super::documents::Documents;
use super::report::Outcome;
use super::{NUMBERS_FILE, Pass, PassError, View};
use crate::apply::{ApplyError, Interposer, apply};
use crate::config::Role;
use crate::desired::DesiredState;
use crate::firewall::BackendKind;
use crate::journal::MAX_LISTED;
use crate::kernel::Kernel;
use crate::kernel::flows::backfill_inbound;
use crate::observed::OwnedState;
use crate::ownership::{Numbers, Ownership};
use crate::plan::{Goal, Plan, plan};
use crate::verify::{Promise, ask_kernel};

/// Looks, plans and applies this often before rolling back.
const ATTEMPTS: usize = 3;

impl Pass<'_> {
    /// From the judgement to the verified kernel.
    pub(super) fn execute(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        documents: &Documents,
        mut interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        let desired = view.desired(self.config, self.role)?;
        self.report.notes.extend(desired.notes.iter().cloned());
        let first = view.plan(kernel, desired.clone())?;
        self.report.notes.extend(first.notes.iter().cloned());
        self.report.take_plan(first.clone());
        if !first.conflicts.is_empty() {
            let messages = first
                .conflicts
                .into_iter()
                .map(|conflict| conflict.message)
                .collect();
            return Err(PassError::Conflict(messages));
        }
        if self.options.dry_run {
            return Ok(());
        }
        self.keep_documents(documents)?;
        self.keep_numbers(view, false)?;
        if !first.is_empty() {
            self.write_begin(self.report.first_steps(MAX_LISTED))?;
            let before = view.observed.owned(&view.ownership);
            let shaped = interposer.as_deref_mut().map(|i| i as &mut dyn Interposer);
            match self.bring_about(kernel, view, desired, first, shaped) {
                Ok(()) => self.report.outcome = Outcome::Changed,
                Err(reason) => return Err(self.roll_back(kernel, view, before, reason)),
            }
        }
        self.keep_numbers(view, true)
    }

    /// Applies and verifies, looking anew after each attempt that didn't end as promised.
    fn bring_about(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        mut desired: DesiredState,
        mut steps: Plan,
        mut interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        let mut trouble = String::new();
        for _ in 0..ATTEMPTS {
            let shaped = interposer.as_deref_mut().map(|i| i as &mut dyn Interposer);
            match self.attempt(kernel, view, &desired, &steps, shaped) {
                Ok(()) => return Ok(()),
                Err(Attempt::Final(reason)) => return Err(PassError::RolledBack { reason }),
                Err(Attempt::Again(reason)) => trouble = reason,
            }
            tracing::warn!("{trouble}; looking again");
            view.refresh(kernel)?;
            desired = view.desired(self.config, self.role)?;
            steps = view.plan(kernel, desired.clone())?;
            if let Some(conflict) = steps.conflicts.first() {
                return Err(PassError::Conflict(vec![conflict.message.clone()]));
            }
        }
        Err(PassError::RolledBack {
            reason: format!("{trouble} ({ATTEMPTS} attempts)"),
        })
    }

    fn attempt(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        desired: &DesiredState,
        steps: &Plan,
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), Attempt> {
        let final_error = |error: PassError| Attempt::Final(error.to_string());
        let marks = self.config.kernel.path_mask.inbound();
        let own: Vec<std::net::IpAddr> = view
            .facts
            .addresses
            .iter()
            .map(|own| own.net.addr())
            .collect();
        let role = self.role;
        let notes = &mut self.report.notes;
        let mut keep_open_flows = || {
            if role == Role::Host
                && let Err(error) = backfill_inbound(marks, &own)
            {
                notes.push(format!(
                    "connections that clients outside have open may break: {error}"
                ));
            }
        };
        let applied = apply(
            steps,
            kernel,
            &view.ownership,
            interposer,
            &mut keep_open_flows,
        );
        match applied {
            Ok(()) => {}
            Err(error) if error.worth_another_look() => {
                return Err(Attempt::Again(error.to_string()));
            }
            Err(error @ ApplyError::Steps(_)) | Err(error @ ApplyError::Netlink(_)) => {
                return Err(Attempt::Final(error.to_string()));
            }
        }
        view.refresh(kernel)
            .map_err(|error| final_error(error.into()))?;
        let again = view.desired(self.config, self.role).map_err(final_error)?;
        let second = view.plan(kernel, again).map_err(final_error)?;
        if !second.is_empty() {
            return Err(Attempt::Again(format!(
                "verify: {} steps are left after applying all, the first: {}",
                second.steps.len(),
                second
                    .steps
                    .first()
                    .map(crate::apply::describe)
                    .unwrap_or_default()
            )));
        }
        let promise = Promise {
            desired,
            facts: &view.facts,
            ownership: &view.ownership,
            vpc_cidrs: &view.vpc_cidrs,
        };
        let findings =
            ask_kernel(&promise, steps, kernel).map_err(|error| final_error(error.into()))?;
        self.report.notes.extend(findings.notes);
        match findings.mismatches.first() {
            None => Ok(()),
            Some(first) => Err(Attempt::Again(format!(
                "verify: {first}{}",
                match findings.mismatches.len() {
                    1 => String::new(),
                    count => format!(" (and {} more)", count - 1),
                }
            ))),
        }
    }

    /// Plans from a fresh look to what was ours before the pass: never a blind inverse, since
    /// others may have changed theirs meanwhile.
    fn roll_back(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        before: OwnedState,
        reason: PassError,
    ) -> PassError {
        let reason = match reason {
            PassError::RolledBack { reason } => reason,
            other => other.to_string(),
        };
        match return_to(kernel, view, before) {
            Ok(()) => {
                self.report.outcome = Outcome::RolledBack;
                PassError::RolledBack { reason }
            }
            Err(rollback) => PassError::RollbackFailed { reason, rollback },
        }
    }

    /// Remembers under which numbers our objects lie: the new ones before anything is written
    /// under them, the old ones until nothing is left under those.
    fn keep_numbers(&mut self, view: &View, done: bool) -> Result<(), PassError> {
        let mut numbers: Vec<Numbers> = vec![view.ownership.current];
        let earlier = view.ownership.earlier.iter().copied();
        // A frozen family keeps what lies under its old numbers, even in a pass that succeeds.
        numbers.extend(earlier.filter(|earlier| !done || still_holds(view, *earlier)));
        let known: Option<Vec<Numbers>> = self.optional(self.store.read_json(NUMBERS_FILE))?;
        if known.as_ref() != Some(&numbers) {
            self.store.write_json(NUMBERS_FILE, &numbers)?;
        }
        Ok(())
    }
}

/// Whether something of ours lies under earlier numbers and not under the current ones.
fn still_holds(view: &View, earlier: Numbers) -> bool {
    let current = Ownership::new(view.ownership.current, []);
    let earlier = Ownership::new(earlier, []);
    let observed = &view.observed;
    observed
        .routes
        .iter()
        .any(|route| earlier.owns_route(route) && !current.owns_route(route))
        || observed
            .rules
            .iter()
            .any(|rule| earlier.owns_rule(rule) && !current.owns_rule(rule))
        || observed
            .nexthops
            .iter()
            .any(|nexthop| earlier.owns_nexthop(nexthop) && !current.owns_nexthop(nexthop))
}

enum Attempt {
    Again(String),
    Final(String),
}

/// Brings the owned state from before the pass back, and reads it back.
fn return_to(kernel: &mut Kernel, view: &mut View, before: OwnedState) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    for kind in [BackendKind::Nftables, BackendKind::Iptables] {
        if before.firewalls.contains_key(&kind) {
            view.observed
                .firewalls
                .entry(kind)
                .or_insert(crate::firewall::ObservedFirewall::Absent);
        }
    }
    let mut goal = Goal::earlier(before);
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        view.refresh(kernel).map_err(|error| text(&error))?;
        // What lay on a device that has gone can't come back.
        let links: Vec<_> = view.facts.links.iter().map(|link| link.index).collect();
        goal.keep_devices(&links);
        let steps = plan(&goal, &view.observed, &view.ownership);
        if steps.is_empty() {
            return Ok(());
        }
        match apply(&steps, kernel, &view.ownership, None, &mut || {}) {
            Ok(()) => {}
            Err(error) if error.worth_another_look() => last = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
    }
    view.refresh(kernel).map_err(|error| text(&error))?;
    match plan(&goal, &view.observed, &view.ownership).steps.len() {
        0 => Ok(()),
        left => Err(format!("{left} steps are left; {last}")),
    }
}
