//! Plan, apply, verify; and back where that doesn't end as promised.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::documents::Documents;
use super::report::{InForce, Outcome};
use super::{Pass, PassError, View};
use crate::apply::{ApplyError, Interposer, apply};
use crate::config::{AutoOr, Role};
use crate::desired::{DesiredState, special};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::Kernel;
use crate::kernel::flows::{backfill_inbound, forget_untranslated};
use crate::observed::OwnedState;
use crate::ownership::Numbers;
use crate::plan::text::rule_text;
use crate::plan::{Goal, ObjectKey, Plan, Step, plan};
use crate::state::StateFile;
use crate::types::Family;
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
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), PassError> {
        if self.role == Role::Nat
            && let Some(refused) = view.instance_error.take()
        {
            return Err(self.restore(kernel, view, refused, interposer));
        }
        let desired = match view.desired(self.config, self.role) {
            Ok(desired) => desired,
            Err(refused) => return Err(self.restore(kernel, view, refused, interposer)),
        };
        self.report.notes.extend(desired.notes.iter().cloned());
        let mut goal = view.goal(kernel, desired.clone())?;
        let first = view.plan_to(&goal);
        self.report.notes.extend(first.notes.iter().cloned());
        self.report.take_plan(first.clone());
        self.report.end_stage("plan");
        if !first.conflicts.is_empty() {
            let messages = first
                .conflicts
                .into_iter()
                .map(|conflict| conflict.message)
                .collect();
            let refused = PassError::Conflict(messages);
            return Err(self.restore(kernel, view, refused, interposer));
        }
        if self.options.dry_run {
            return Ok(());
        }
        if let Some(ObservedFirewall::Unreadable(why)) =
            view.observed.firewalls.get(&view.backend.kind)
        {
            // Neither a plan nor a way back from what isn't known.
            let refused = PassError::NoFirewall(format!("{}: {why}", view.backend.kind));
            return Err(self.restore(kernel, view, refused, interposer));
        }
        self.keep_documents(documents)?;
        self.keep_numbers(view, false)?;
        if !first.is_empty() {
            self.write_begin()?;
            let before = view.observed.owned(&view.ownership);
            self.report.end_stage("store");
            let aim = Aim { desired, goal };
            match self.bring_about(kernel, view, aim, first, interposer) {
                Ok(reached) => {
                    self.report.outcome = Outcome::Changed;
                    goal = reached;
                }
                Err(PassError::Stopped) => return Err(PassError::Stopped),
                Err(reason) => return Err(self.roll_back(kernel, view, before, reason)),
            }
            self.report.end_stage("verify");
        }
        self.keep_numbers(view, true)?;
        self.report.in_force = Some(Box::new(InForce {
            goal,
            ownership: view.ownership.clone(),
            facts: view.facts.clone(),
        }));
        self.report.end_stage("store");
        Ok(())
    }

    /// Applies and verifies, looking anew after each attempt that didn't end as promised.
    fn bring_about(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        mut aim: Aim,
        mut steps: Plan,
        mut interposer: Option<&mut dyn Interposer>,
    ) -> Result<Goal, PassError> {
        let mut trouble = String::new();
        let mut tried: Vec<Step> = Vec::new();
        // Giving way comes after that, and may come upon others again.
        for attempt in 1..=2 * ATTEMPTS {
            let mut shaped = interposer.as_deref_mut().map(|i| i as &mut dyn Interposer);
            if let Some(interposer) = &mut shaped {
                interposer.heads_for(&aim.goal);
            }
            let carried_out;
            match self.attempt(kernel, view, &aim.desired, &steps, &tried, shaped) {
                Ok(()) => return Ok(aim.goal),
                Err(Attempt::Stopped) => return Err(PassError::Stopped),
                Err(Attempt::Final(reason)) => return Err(PassError::RolledBack { reason }),
                Err(Attempt::Refused(reason)) => (trouble, carried_out) = (reason, false),
                Err(Attempt::Undone(reason)) => (trouble, carried_out) = (reason, true),
            }
            match self.options.watched {
                // The agent tells of a fight once, and not each time that it looks after it.
                true => tracing::debug!("{trouble}; looking again"),
                false => tracing::warn!("{trouble}; looking again"),
            }
            tried.append(&mut steps.steps);
            view.refresh(kernel)?;
            let desired = view.desired(self.config, self.role)?;
            let goal = view.goal(kernel, desired.clone())?;
            steps = view.plan_to(&goal);
            aim = Aim { desired, goal };
            if let Some(conflict) = steps.conflicts.first() {
                let reason = format!("conflict: {}", conflict.message);
                return Err(PassError::RolledBack { reason });
            }
            let last = attempt >= ATTEMPTS;
            let gives_way =
                |key: &ObjectKey| last || carried_out && self.options.fought.contains(key);
            let fought = match self.options.watched {
                true => view.give_way(&tried, &steps, gives_way),
                false => BTreeSet::new(),
            };
            if last && fought.is_empty() {
                break;
            }
            steps.withhold(&fought);
            self.report.plan.withheld.extend(fought);
            if !steps.is_empty() {
                self.report.take_more(&steps, carried_out);
                self.write_begin()?;
            }
        }
        Err(PassError::RolledBack {
            reason: format!("{trouble} ({ATTEMPTS} attempts)"),
        })
    }

    /// What lets connections that clients outside have open keep their path, and flows that
    /// began while nobody translated them begin again.
    pub(super) fn keep_open_flows(&mut self, view: &View) -> impl FnMut() {
        let marks = self.config.kernel.path_mask.inbound();
        let addresses = view.facts.addresses.iter();
        let own: Vec<std::net::IpAddr> = addresses.map(|own| own.net.addr()).collect();
        let role = self.role;
        let sources = match &self.config.nat.sources {
            AutoOr::Set(sources) => sources.clone(),
            AutoOr::Auto => view.vpc_cidrs.clone(),
        };
        let families = Family::ALL.into_iter();
        let private: Vec<IpNet> = families
            .flat_map(|family| special::thrown(family, &view.vpc_cidrs))
            .collect();
        let notes = &mut self.report.notes;
        // Before the rules come, there is nothing to begin again with.
        let mut rules_are_in = false;
        move || {
            let (kept, what) = match role {
                Role::Host => (
                    backfill_inbound(marks, &own).map(drop),
                    "connections that clients outside have open may break",
                ),
                Role::Nat if !std::mem::replace(&mut rules_are_in, true) => return,
                Role::Nat => (
                    forget_untranslated(&sources, &private).map(drop),
                    "flows that began while nobody translated them stay so",
                ),
            };
            if let Err(error) = kept {
                notes.push(format!("{what}: {error}"));
            }
        }
    }

    fn attempt(
        &mut self,
        kernel: &mut Kernel,
        view: &mut View,
        desired: &DesiredState,
        steps: &Plan,
        tried: &[Step],
        interposer: Option<&mut dyn Interposer>,
    ) -> Result<(), Attempt> {
        let final_error = |error: PassError| Attempt::Final(error.to_string());
        let applied = apply(
            steps,
            kernel,
            &view.ownership,
            interposer,
            &mut self.keep_open_flows(view),
        );
        self.report.end_stage("apply");
        match applied {
            Ok(()) => {}
            // Whoever puts back what goes has done it between our look and our step; or it is
            // somebody else's, which shows below.
            Err(error) if self.options.watched && error.is_there_already() => {}
            Err(error) if error.worth_another_look() => {
                return Err(Attempt::Refused(error.to_string()));
            }
            Err(ApplyError::Stopped) => return Err(Attempt::Stopped),
            Err(error @ ApplyError::Steps(_)) | Err(error @ ApplyError::Netlink(_)) => {
                return Err(Attempt::Final(error.to_string()));
            }
        }
        view.refresh(kernel)
            .map_err(|error| final_error(error.into()))?;
        let again = view.desired(self.config, self.role).map_err(final_error)?;
        let second = view.plan(kernel, again).map_err(final_error)?;
        let all = tried.iter().chain(&steps.steps);
        let left = self.left_undone(&second, all.clone());
        if let Some(first) = left.first() {
            return Err(Attempt::Undone(format!(
                "verify: {} steps are left after applying all, the first: {}",
                left.len(),
                first
            )));
        }
        if let (true, Some(conflict)) = (self.options.watched, second.conflicts.first()) {
            return Err(Attempt::Undone(format!("verify: {}", conflict.message)));
        }
        let promise = Promise {
            desired,
            facts: &view.facts,
            ownership: &view.ownership,
            vpc_cidrs: &view.vpc_cidrs,
        };
        let findings =
            ask_kernel(&promise, all, kernel).map_err(|error| final_error(error.into()))?;
        self.report.notes.extend(findings.notes);
        match findings.mismatches.first() {
            None => Ok(()),
            // What is left alone may be the cause, and the rest is not to suffer for it.
            Some(first) if view.leaves_some_alone() => {
                self.report.notes.push(format!("verify: {first}"));
                Ok(())
            }
            Some(first) => Err(Attempt::Undone(format!(
                "verify: {first}{}{}",
                match findings.mismatches.len() {
                    1 => String::new(),
                    count => format!(" (and {} more)", count - 1),
                },
                passed_by(view)
            ))),
        }
    }

    /// Of the steps that a second look finds, those that this pass answers for.
    fn left_undone<'p>(
        &self,
        second: &'p Plan,
        tried: impl Iterator<Item = &'p Step>,
    ) -> Vec<&'p Step> {
        if !self.options.watched || second.is_empty() {
            return second.steps.iter().collect();
        }
        let tried: BTreeSet<ObjectKey> = tried.map(Step::key).collect();
        let ours = |step: &&Step| tried.contains(&step.key());
        second.steps.iter().filter(ours).collect()
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
            Ok(left_out) => {
                if left_out {
                    self.report.notes.push(
                        "rollback: routes on a link that is down or gone, or whose gateway has no link any more, can't come back"
                            .to_owned(),
                    );
                }
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
        if done {
            // A family without a gateway or a document keeps what lies under the old ones.
            numbers.extend(view.observed.earlier_numbers_in_use(&view.ownership));
        } else {
            numbers.extend(view.ownership.earlier.iter().copied());
        }
        if self.stored_numbers.as_ref() != Some(&numbers) {
            self.store.write_json(StateFile::Numbers, &numbers)?;
            self.stored_numbers = Some(numbers);
        }
        Ok(())
    }
}

/// The likely cause of a promise that doesn't hold: somebody's rules before ours.
fn passed_by(view: &View) -> String {
    let rules: Vec<String> = view
        .observed
        .rules
        .iter()
        .filter(|rule| view.ownership.is_passed_by(rule))
        .map(|rule| format!("{} {}: {}", rule.family, rule.priority, rule_text(rule)))
        .collect();
    match rules.is_empty() {
        true => String::new(),
        false => format!(
            "; foreign rules that come before ours: {}",
            rules.join(", ")
        ),
    }
}

/// What a pass wants, and that in the words of plans.
struct Aim {
    desired: DesiredState,
    goal: Goal,
}

/// How an attempt ended that didn't end well.
enum Attempt {
    Stopped,
    /// A step was refused that another look may do without: the rest isn't carried out.
    Refused(String),
    /// Every step is carried out, and the kernel isn't as promised.
    Undone(String),
    Final(String),
}

/// Brings the owned state from before the pass back, and reads it back. Whether something had to
/// be left out, since its link or its gateway has gone.
fn return_to(kernel: &mut Kernel, view: &mut View, before: OwnedState) -> Result<bool, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    for kind in BackendKind::ALL {
        if before.firewalls.contains_key(&kind) {
            view.observed
                .firewalls
                .entry(kind)
                .or_insert(crate::firewall::ObservedFirewall::Absent);
        }
    }
    let mut goal = Goal::earlier(before);
    let mut last = String::new();
    let mut left_out = false;
    for _ in 0..ATTEMPTS {
        if let Err(error) = view.refresh(kernel) {
            last = error.to_string();
            continue;
        }
        left_out |= goal.keep_possible(&view.facts, &view.observed);
        let steps = plan(&goal, &view.observed, &view.ownership);
        if steps.is_empty() {
            return settled(&steps).map(|()| left_out);
        }
        match apply(&steps, kernel, &view.ownership, None, &mut || {}) {
            Ok(()) => {}
            Err(error) if error.worth_another_look() => last = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
    }
    view.refresh(kernel).map_err(|error| text(&error))?;
    let steps = plan(&goal, &view.observed, &view.ownership);
    match steps.steps.len() {
        0 => settled(&steps).map(|()| left_out),
        left => Err(format!("{left} steps are left; {last}")),
    }
}

/// No step is left, but where a firewall of our name is somebody else's by now, ours isn't back.
fn settled(rest: &Plan) -> Result<(), String> {
    match rest.conflicts.first() {
        None => Ok(()),
        Some(conflict) => Err(conflict.message.clone()),
    }
}
