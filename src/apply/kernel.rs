//! Executes a plan: bypass routes in batches, all steps with a significant order one at a time.
//! Execution stops at the first group with a failure, since later steps may depend on the group.

use std::fmt;

use ipnet::IpNet;
use thiserror::Error;

use crate::kernel::Kernel;
use crate::kernel::errno::{ErrorClass, KernelError};
use crate::kernel::firewall::FirewallError;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::nexthop;
use crate::kernel::route::{self, Write};
use crate::kernel::rule;
use crate::ownership::Ownership;
use crate::plan::{Action, FirewallAfter, Goal, ObjectKey, Plan, Step};

/// Sees each step before the step is sent. Tests use an interposer to fail or to kill the process
/// at a chosen step; batching is off then, so that each step can be chosen. The agent uses an
/// interposer to stop a pass.
pub trait Interposer {
    /// Receives the goal of the following steps: before the first step, and again before another
    /// attempt with a changed goal.
    fn heads_for(&mut self, _goal: &Goal) {}

    /// A refusal in place of the kernel's answer, or `None` to send the step.
    fn before(&mut self, index: usize, step: &Step) -> Option<KernelError>;

    /// True to batch routes nevertheless; the interposer then sees only the first of each batch.
    fn batches(&self) -> bool {
        false
    }

    /// True to stop between two steps.
    fn stops(&self) -> bool {
        false
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct StepFailure {
    pub index: usize,
    pub object: ObjectKey,
    /// The step in words: `add route 3.5.0.0/19 in table 1083`.
    pub step: String,
    pub reason: String,
    pub class: ErrorClass,
}

impl StepFailure {
    /// True if another observation and another plan cannot help.
    pub fn is_final(&self) -> bool {
        !matches!(
            self.class,
            ErrorClass::Exists | ErrorClass::LinkChanged | ErrorClass::Transient | ErrorClass::Gone
        )
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}: {}", self.index + 1, self.step, self.reason)
    }
}

/// The reason for an incomplete execution.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("{}", list(.0))]
    Steps(Vec<StepFailure>),
    /// Communication with the kernel failed; any part of the current group may be in effect.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("stopped between two steps; the next pass continues")]
    Stopped,
}

/// The number of routes between two checks for a stop. The kernel needs about 10 ms for 4,096
/// routes (190 ms for 100,000 on two cores), and a stop must take less than a second.
const BETWEEN_LOOKS: usize = 4096;

const NAMED: usize = 3;

fn list(failures: &[StepFailure]) -> String {
    crate::words::first_few(failures, NAMED, "; ")
}

impl ApplyError {
    /// True if another observation and another plan may succeed.
    pub fn worth_another_look(&self) -> bool {
        match self {
            ApplyError::Steps(failures) => !failures.iter().any(StepFailure::is_final),
            ApplyError::Netlink(error) => matches!(
                error,
                NetlinkError::Overrun { .. } | NetlinkError::Interrupted { .. }
            ),
            ApplyError::Stopped => false,
        }
    }

    /// True if each failed step only found the object in place already.
    pub fn is_there_already(&self) -> bool {
        match self {
            ApplyError::Steps(failures) => failures
                .iter()
                .all(|failure| failure.class == ErrorClass::Exists),
            ApplyError::Netlink(_) | ApplyError::Stopped => false,
        }
    }
}

/// Executes the plan. `keep_open_flows` marks open flows in conntrack and runs twice around a
/// firewall step that adds our marks: before, so that the first packet of each flow finds the mark;
/// after, for the flows that were opened in between. Both runs precede the first policy rule.
///
/// # Errors
/// The first group with a failure ends the execution; earlier groups are in effect.
pub fn apply(
    plan: &Plan,
    kernel: &mut Kernel,
    ownership: &Ownership,
    interposer: Option<&mut dyn Interposer>,
    keep_open_flows: &mut dyn FnMut(),
) -> Result<(), ApplyError> {
    each_group(plan, kernel, ownership, interposer, keep_open_flows, Err)
}

/// Executes every step that the kernel accepts and returns the refused steps. Only for a plan that
/// restores an earlier state: there, no step becomes unsafe because an earlier step was refused.
///
/// # Errors
/// Communication with the kernel failed, or the process received a request to stop.
pub fn apply_each(
    plan: &Plan,
    kernel: &mut Kernel,
    ownership: &Ownership,
    interposer: Option<&mut dyn Interposer>,
    keep_open_flows: &mut dyn FnMut(),
) -> Result<Vec<StepFailure>, ApplyError> {
    let mut refused = Vec::new();
    let go_on = |error| match error {
        ApplyError::Steps(mut failures) => {
            refused.append(&mut failures);
            Ok(())
        }
        other => Err(other),
    };
    each_group(plan, kernel, ownership, interposer, keep_open_flows, go_on)?;
    Ok(refused)
}

fn each_group(
    plan: &Plan,
    kernel: &mut Kernel,
    ownership: &Ownership,
    mut interposer: Option<&mut dyn Interposer>,
    keep_open_flows: &mut dyn FnMut(),
    mut refused: impl FnMut(ApplyError) -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    let mut next = 0;
    while next < plan.steps.len() {
        if interposer.as_ref().is_some_and(|i| i.stops()) {
            return Err(ApplyError::Stopped);
        }
        let end = match &interposer {
            Some(interposer) if !interposer.batches() => next + 1,
            _ => group_end(&plan.steps, next, ownership),
        };
        if let Some(interposer) = interposer.as_deref_mut()
            && let Some(error) = interposer.before(next, &plan.steps[next])
        {
            settle(vec![(next, error)], &plan.steps).or_else(&mut refused)?;
        } else {
            let marks_come = matches!(
                plan.steps[next],
                Step::Firewall {
                    after: FirewallAfter::Policy(_),
                    ..
                }
            );
            if marks_come {
                keep_open_flows();
            }
            let stops = || interposer.as_ref().is_some_and(|i| i.stops());
            carry_out(&plan.steps, next, end, kernel, &stops).or_else(&mut refused)?;
            if marks_come {
                keep_open_flows();
            }
        }
        next = end;
    }
    Ok(())
}

/// The end of the group that begins at `start`: a run of additions or of deletions of bypass routes.
fn group_end(steps: &[Step], start: usize, ownership: &Ownership) -> usize {
    let batch = |step: &Step| match step {
        Step::Route { action, route, .. } if ownership.is_bypass_table(route.key.table) => {
            Some(*action == Action::Delete)
        }
        _ => None,
    };
    let Some(kind) = batch(&steps[start]) else {
        return start + 1;
    };
    let length = steps[start..]
        .iter()
        .take_while(|step| batch(step) == Some(kind))
        .count();
    start + length
}

fn carry_out(
    steps: &[Step],
    start: usize,
    end: usize,
    kernel: &mut Kernel,
    stops: &dyn Fn() -> bool,
) -> Result<(), ApplyError> {
    let group = &steps[start..end];
    let refusals = match &group[0] {
        Step::Sysctl(setting) => {
            let result = crate::kernel::sysctl::write(&setting.path, &setting.to);
            result
                .err()
                .map(|error| {
                    let errno = error.raw_os_error().unwrap_or(0);
                    (
                        0,
                        KernelError {
                            errno,
                            message: Some(error.to_string()),
                        },
                    )
                })
                .into_iter()
                .collect()
        }
        Step::Firewall {
            backend,
            action,
            after,
            ..
        } => {
            let known = kernel.refusals(*backend).clone();
            let marked = kernel.firewall(*backend).marks_forwarded();
            let result = match (action, after) {
                (Action::Delete, _) | (_, FirewallAfter::Nothing) => {
                    kernel.firewall(*backend).remove()
                }
                (_, FirewallAfter::Policy(ruleset)) => kernel.install_policy(*backend, ruleset),
                (_, FirewallAfter::Earlier(owned)) => {
                    kernel.firewall(*backend).restore(&owned.snapshot)
                }
            };
            let failure = |class, reason| {
                ApplyError::Steps(vec![StepFailure {
                    index: start,
                    object: group[0].key(),
                    step: group[0].to_string(),
                    class,
                    reason,
                }])
            };
            result.map_err(|error| {
                let class = class_of(&error, *action == Action::Delete);
                failure(class, error.to_string())
            })?;
            let marks = kernel.firewall(*backend).marks_forwarded();
            if *kernel.refusals(*backend) != known || marks != marked {
                // The later steps belong to another policy: a family without translation must not
                // lose the routes that close its path.
                let reason = "the firewall takes other parts of the rules than before";
                return Err(failure(ErrorClass::Transient, reason.to_owned()));
            }
            return Ok(());
        }
        Step::Policy { action, policy } => {
            let refused = kernel.change_policy(*action == Action::Delete, policy)?;
            refused.into_iter().map(|error| (0, error)).collect()
        }
        _ => send(group, kernel, stops)?,
    };
    settle(
        refusals
            .into_iter()
            .map(|(place, error)| (start + place, error))
            .collect(),
        steps,
    )
}

/// Sends the whole group and returns all refusals, so that one new plan can cover all of them.
fn send(
    group: &[Step],
    kernel: &mut Kernel,
    stops: &dyn Fn() -> bool,
) -> Result<Vec<(usize, KernelError)>, ApplyError> {
    let order = spread(group);
    let mut refusals = Vec::new();
    for (number, part) in order.chunks(BETWEEN_LOOKS).enumerate() {
        if number > 0 && stops() {
            return Err(ApplyError::Stopped);
        }
        let encode = |place: usize, buffer: &mut Vec<u8>| encode(&group[part[place]], buffer);
        let refused = kernel.socket().batch("apply", part.len(), encode)?;
        refusals.extend(
            refused
                .into_iter()
                .map(|(place, error)| (part[place], error)),
        );
    }
    refusals.sort_by_key(|(place, _)| *place);
    Ok(refusals)
}

/// The indexes of steps with no significant order, such as bypass routes, in the order that is
/// fastest for the kernel.
///
/// The IPv4 trie doubles a node when the node fills up, and moves the entries. Routes added in
/// ascending order fill one node after the other; routes spread over all addresses from the start
/// (sorted by the reversed bits of the address) take two thirds of the time, measured with 12,000
/// routes. Deletions keep the descending order of the plan, for the same reason.
pub fn spread(group: &[Step]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..group.len()).collect();
    places.sort_by_cached_key(|place| match &group[*place] {
        Step::Route {
            action: Action::Add | Action::Replace,
            route,
            ..
        } => match route.key.dst {
            IpNet::V4(net) => net.network().to_bits().reverse_bits(),
            IpNet::V6(_) => u32::MAX,
        },
        _ => 0,
    });
    places
}

fn class_of(error: &FirewallError, deleting: bool) -> ErrorClass {
    match error {
        FirewallError::Refused {
            errno: Some(errno), ..
        } => KernelError::from_errno(*errno).class(deleting),
        _ => ErrorClass::Other,
    }
}

fn encode(step: &Step, buffer: &mut Vec<u8>) -> (u16, u16) {
    match step {
        Step::Route { action, route, .. } => route::encode(write(*action), route, buffer),
        Step::Nexthop(nexthop) => nexthop::encode_delete(nexthop.id, buffer),
        Step::Rule { action, rule } => rule::encode(*action == Action::Delete, rule, buffer),
        // `carry_out` executes these steps itself. A no-op message keeps the function total
        // (`NLMSG_NOOP`, linux/netlink.h).
        Step::Sysctl(_) | Step::Firewall { .. } | Step::Policy { .. } => (1, 0),
    }
}

fn write(action: Action) -> Write {
    match action {
        Action::Add => Write::Add,
        Action::Replace => Write::Replace,
        Action::Delete => Write::Delete,
    }
}

/// Turns refusals into failures, except refusals that mean success.
fn settle(refusals: Vec<(usize, KernelError)>, steps: &[Step]) -> Result<(), ApplyError> {
    let failures: Vec<StepFailure> = refusals
        .into_iter()
        .filter_map(|(index, error)| {
            let step = &steps[index];
            let class = error.class(step.action() == Action::Delete);
            (class != ErrorClass::Gone).then(|| StepFailure {
                index,
                object: step.key(),
                step: step.to_string(),
                reason: format!("{error}{}", error.advice()),
                class,
            })
        })
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Steps(failures))
    }
}
