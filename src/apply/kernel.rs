//! Carries out a plan: routes of the bypass table many at a time, everything whose order matters
//! one by one. Stops at the first group with a failure; what follows might rely on it.

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
use crate::plan::{Action, FirewallAfter, Goal, Plan, Step};

/// Looks at each step before it is sent. Tests use it to fail or to die at a chosen step: nothing
/// is batched then, so that each step is a point of its own. The agent ends a pass with it.
pub trait Interposer {
    /// What the steps that follow lead to. Said before the first of them, and again where a pass
    /// looks anew and wants something else.
    fn heads_for(&mut self, _goal: &Goal) {}

    /// An answer given in the kernel's place, or `None` to go on.
    fn before(&mut self, index: usize, step: &Step) -> Option<KernelError>;

    /// Whether routes go many at a time all the same; then only the first of each is shown.
    fn batches(&self) -> bool {
        false
    }

    /// Whether to end here, between two steps.
    fn stops(&self) -> bool {
        false
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// Its place in the plan.
    pub index: usize,
    /// The step in words: `add route 3.5.0.0/19 in table 1083`.
    pub step: String,
    /// Why.
    pub reason: String,
    /// What that means for the pass.
    pub class: ErrorClass,
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}: {}", self.index + 1, self.step, self.reason)
    }
}

/// Why a plan was not carried out to its end.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Steps were refused.
    #[error("{}", list(.0))]
    Steps(Vec<StepFailure>),
    /// Talking to the kernel failed; what of the current group arrived is unknown.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The process is told to end.
    #[error("stopped between two steps; the next pass goes on from there")]
    Stopped,
}

/// Routes that are sent between two looks at whether to end. 4,096 take the kernel some 10 ms
/// (190 ms for 100,000 on two cores), and a stop is promised within a second.
const BETWEEN_LOOKS: usize = 4096;

/// How many failures a message names.
const NAMED: usize = 3;

fn list(failures: &[StepFailure]) -> String {
    let mut text: Vec<String> = failures
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    if failures.len() > NAMED {
        text.push(format!("and {} more", failures.len() - NAMED));
    }
    text.join("; ")
}

impl ApplyError {
    /// Whether observing and planning again may help.
    pub fn worth_another_look(&self) -> bool {
        match self {
            ApplyError::Steps(failures) => failures.iter().all(|failure| {
                matches!(
                    failure.class,
                    ErrorClass::Exists
                        | ErrorClass::LinkChanged
                        | ErrorClass::Transient
                        | ErrorClass::Gone
                )
            }),
            ApplyError::Netlink(error) => matches!(
                error,
                NetlinkError::Overrun { .. } | NetlinkError::Interrupted { .. }
            ),
            ApplyError::Stopped => false,
        }
    }

    /// Whether somebody else was faster everywhere, and nothing else is wrong.
    pub fn is_there_already(&self) -> bool {
        match self {
            ApplyError::Steps(failures) => failures
                .iter()
                .all(|failure| failure.class == ErrorClass::Exists),
            ApplyError::Netlink(_) | ApplyError::Stopped => false,
        }
    }
}

/// Carries out the plan. `keep_open_flows` runs before and after our marks come into a firewall
/// that lacked some of them: before, so that the first packet finds its flow marked; after, for
/// the flows that opened in between. Either way before the first rule.
///
/// # Errors
/// The first group of steps with a failure ends it; earlier groups are done.
pub fn apply(
    plan: &Plan,
    kernel: &mut Kernel,
    ownership: &Ownership,
    interposer: Option<&mut dyn Interposer>,
    keep_open_flows: &mut dyn FnMut(),
) -> Result<(), ApplyError> {
    each_group(plan, kernel, ownership, interposer, keep_open_flows, Err)
}

/// Carries out what it can: a step that is refused holds up none that follows. Only for what lay
/// there before, all together: then nothing that follows is worse without it. Gives what was
/// refused.
///
/// # Errors
/// Talking to the kernel failed, or the process is told to end.
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

/// The end of the group that begins at `start`: bypass routes that are all put or all taken.
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
            let firewall = kernel.firewall(*backend);
            let result = match (action, after) {
                (Action::Delete, _) | (_, FirewallAfter::Nothing) => firewall.remove(),
                (_, FirewallAfter::Policy(ruleset)) => firewall.replace(ruleset),
                (_, FirewallAfter::Earlier(owned)) => firewall.restore(&owned.snapshot),
            };
            return result.map_err(|error| {
                ApplyError::Steps(vec![StepFailure {
                    index: start,
                    step: group[0].to_string(),
                    class: class_of(&error, *action == Action::Delete),
                    reason: error.to_string(),
                }])
            });
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

/// Sends the whole group, whatever is refused of it: one answer for all that needs another look.
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

/// The places of steps whose order doesn't matter, such as routes of the bypass table, in the order
/// in which the kernel takes them fastest. IPv4's trie grows
/// where routes go in: in ascending order it doubles one node after the other and moves what it
/// has just put there; spread over all addresses from the start (by their bits read backwards)
/// the same 12,000 routes take two thirds of the time. Deletes come in the plan's order, which
/// descends for the same reason.
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
        // Sent by `carry_out`; a no-op message keeps this total (`NLMSG_NOOP`, linux/netlink.h).
        Step::Sysctl(_) | Step::Firewall { .. } => (1, 0),
    }
}

fn write(action: Action) -> Write {
    match action {
        Action::Add => Write::Add,
        Action::Replace => Write::Replace,
        Action::Delete => Write::Delete,
    }
}

/// Turns refusals into failures, but for those that mean success.
fn settle(refusals: Vec<(usize, KernelError)>, steps: &[Step]) -> Result<(), ApplyError> {
    let failures: Vec<StepFailure> = refusals
        .into_iter()
        .filter_map(|(index, error)| {
            let step = &steps[index];
            let class = error.class(step.action() == Action::Delete);
            (class != ErrorClass::Gone).then(|| StepFailure {
                index,
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
