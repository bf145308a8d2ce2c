//! The egress, shut before the network comes up: by the settings alone, without the state dir, a
//! document or the metadata service.
//!
//! A NAT gets the objects that a pass puts in first. A host gets the state of `desired::shut`, which
//! answers connections from outside; without nf_tables, and where a pass has been, the objects that
//! a pass puts in first as well.

use super::attempt::Machine;
use super::egress::put_in;
use super::pass::Pass;
use super::report::{Outcome, Report};
use super::view::{Firewalls, View};
use super::{FILE_WAIT, Job, Mode, Options, PassError};
use crate::config::{AutoOr, Config, Role};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::{Kernel, ObserveError};
use crate::ownership::{Numbers, Ownership};
use crate::plan::{Action, FirewallGoal, Goal, Plan, Step};
use crate::state::lock::PassLock;

/// The command, for the holder of the lock.
const SHUT: &str = "shut";

/// Shuts the egress until the first pass. Errors are in the report.
pub fn shut(
    config: &Config,
    role: Role,
    kernel: impl FnOnce() -> Result<Kernel, ObserveError>,
) -> Report {
    let options = Options::default();
    let job = Job {
        config,
        role,
        options: &options,
    };
    let mut pass = Pass::new(job);
    let result = pass.shut(kernel);
    pass.end(result)
}

impl Pass<'_> {
    fn shut(
        &mut self,
        kernel: impl FnOnce() -> Result<Kernel, ObserveError>,
    ) -> Result<(), PassError> {
        debug_assert_eq!(self.job.options.mode, Mode::Apply);
        self.job.check_privilege()?;
        let state_dir = &self.job.config.source.state_dir;
        // The other pass closes the path by itself.
        let _lock = PassLock::exclude(state_dir, SHUT, FILE_WAIT)?;
        let mut kernel = kernel()?;
        let by_source = match self.job.role {
            Role::Host => self.shut_host(&mut kernel)?,
            Role::Nat => false,
        };
        if !by_source {
            self.close_by_settings(&mut kernel, None)?;
        }
        if !self.report.plan.steps.is_empty() {
            self.report.outcome = Outcome::Changed;
        }
        let mut late = std::mem::take(&mut self.late).into_iter();
        late.next().map_or(Ok(()), Err)
    }

    /// Returns false if the host cannot have the shut state of its own.
    fn shut_host(&mut self, kernel: &mut Kernel) -> Result<bool, PassError> {
        let mut config = self.job.config.clone();
        // Packet marks before a repeated routing decision need nf_tables, and the first pass with
        // another firewall removes the table.
        config.nat.backend = AutoOr::Set(BackendKind::Nftables);
        let job = Job {
            config: &config,
            ..self.job
        };
        let ownership = Ownership::new(Numbers::of(&config), []);
        let facts = kernel.facts()?;
        let view = match View::open(kernel, &config, ownership, Firewalls::Chosen, facts) {
            Ok(view) => view,
            Err(error) => {
                self.note(format!("{error}; {SYSCTLS}").into());
                return Ok(false);
            }
        };
        if has_passed(&view) {
            return Ok(false);
        }
        let desired = view.shut(&config);
        if desired.rules.is_empty() {
            self.note(OPEN.to_owned().into());
            return Ok(true);
        }
        self.report.devices = view.devices();
        self.report.backend = Some(view.backend.clone());
        let goal = view.goal(kernel, desired)?;
        let mut machine = Machine {
            kernel,
            view,
            interposer: None,
        };
        let firewall = |step: &Step| matches!(step, Step::Firewall { .. });
        self.add(&mut machine, job, &goal, &firewall)?;
        machine.view.refresh(machine.kernel)?;
        if !marks_packets(&machine.view, &goal) {
            self.note(format!("nftables refuses the rules of the shut state; {SYSCTLS}").into());
            return Ok(false);
        }
        self.add(&mut machine, job, &goal, &|step| !firewall(step))?;
        machine.view.refresh(machine.kernel)?;
        let left = additions(&machine.view, &goal);
        match left.steps.first() {
            Some(first) => Err(PassError::NotShut(format!("the kernel lacks: {first}"))),
            None => Ok(true),
        }
    }

    /// Carries out the chosen steps to the goal.
    fn add(
        &mut self,
        machine: &mut Machine<'_>,
        job: Job<'_>,
        goal: &Goal,
        chosen: &dyn Fn(&Step) -> bool,
    ) -> Result<(), PassError> {
        let mut steps = additions(&machine.view, goal);
        steps.steps.retain(chosen);
        let (executed, notes) = put_in(machine, job, steps)?;
        self.note(notes);
        self.report.plan.steps.extend(executed);
        self.laps.end("apply");
        Ok(())
    }
}

const SYSCTLS: &str = "connections from outside need tcp_fwmark_accept and src_valid_mark until the first pass (see `trailblazer check`)";

const OPEN: &str = "the settings leave the egress open: there is nothing to shut";

/// True if a pass has put the egress in.
fn has_passed(view: &View) -> bool {
    let (observed, ownership) = (&view.observed, &view.ownership);
    let has_rules = observed.rules.iter().any(|rule| ownership.owns_rule(rule));
    has_rules && !observed.is_shut(ownership)
}

/// True if the firewall holds the whole policy of the goal.
fn marks_packets(view: &View, goal: &Goal) -> bool {
    let FirewallGoal::Policy { backend, text, .. } = &goal.firewall else {
        return false;
    };
    let found = view.observed.firewalls.get(backend);
    let whole = matches!(found, Some(ObservedFirewall::Owned(owned)) if owned.text == *text);
    whole && view.refused.is_empty()
}

/// The steps to the goal without deletions.
fn additions(view: &View, goal: &Goal) -> Plan {
    let mut steps = view.plan_to(goal);
    steps.steps.retain(|step| step.action() != Action::Delete);
    steps.conflicts.clear();
    steps.notes.clear();
    steps
}
