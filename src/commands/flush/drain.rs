//! `flush --drain`: removes at once all objects that decide about new flows, and keeps those that open
//! flows need until the flows end.
//!
//! The kernel is the only memory: the tables, rules and marks of the open flows are read there, so each
//! further call, of any process, removes the objects of the flows that have ended meanwhile.

use std::time::{Duration, Instant};

use super::numbers::Known;
use super::outcome::Flushed;
use super::{Log, apply_all, flush, observe};
use crate::cli::FlushArgs;
use crate::desired::drain::{Drain, Present, decides};
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::Kernel;
use crate::kernel::flows::flows_on_paths;
use crate::observed::ObservedState;
use crate::plan::{FirewallGoal, Goal, Plan, Step, plan};
use crate::types::PerFamily;
use crate::words::counted;

/// Most rounds of reading and removing: one for the objects that decide, one for the objects of paths
/// without flows, one that finds nothing to do, and as many again for objects that change meanwhile.
const ROUNDS: usize = 6;

/// The time between two counts of the open flows. The kernel walks conntrack's whole table for each.
const INTERVAL: Duration = Duration::from_secs(2);

const TAKEN_OVER: &str = "a pass has put Trailblazer in force again, so that the drain ends here; open flows keep their path";

const UNPINNED: &str =
    "no flow of this host is pinned ([egress] pin): open flows take the path of new ones";

/// Drains, and waits for the end of the open flows if the arguments ask for it.
pub(super) async fn run(known: &Known, arguments: &FlushArgs) -> Flushed {
    if let Some(mistake) = &known.mistake {
        let mut refused = Flushed::new(Vec::new());
        refused.errors.push(format!(
            "{mistake}; a drain needs the marks of the config: correct the file, or flush without --drain"
        ));
        return refused;
    }
    if arguments.dry_run {
        return preview(known);
    }
    let mut flushed = flush(known, true, &mut |kernel, flushed, log| {
        remove(known, kernel, flushed, log, true);
    });
    let Some(limit) = arguments.wait else {
        return flushed;
    };
    flushed.waited = true;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut told = 0;
    while flushed.errors.is_empty() && !flushed.left.is_empty() {
        let open = flushed.left.iter().map(|left| left.flows).sum();
        if open != told {
            tracing::warn!("waiting for the end of {}", counted(open, "open flow"));
            told = open;
        }
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            break;
        }
        tokio::time::sleep(rest.map_or(INTERVAL, |rest| rest.min(INTERVAL))).await;
        flushed.follow(flush(known, false, &mut |kernel, flushed, log| {
            remove(known, kernel, flushed, log, false);
        }));
    }
    flushed
}

/// The steps of the first call. Changes no kernel object and no file.
fn preview(known: &Known) -> Flushed {
    let mut flushed = Flushed::preview(known.notes.clone());
    let steps = Kernel::open().map_err(|error| error.to_string());
    let steps = steps.and_then(|mut kernel| {
        let mut notes = Vec::new();
        let observed = observe(
            &mut kernel,
            &known.ownership,
            &mut notes,
            &mut flushed.errors,
        )
        .map_err(|error| error.to_string())?;
        let mut drain = drain(known, &mut kernel, &observed)?;
        match flows_on_paths(known.config.kernel.pin_marks()) {
            Ok(flows) => {
                drain.keep(&flows);
                flushed.left = drain.left(&flows);
            }
            Err(error) => notes.push(format!("the open flows are unknown: {error}")),
        }
        let goal = goal(known, &drain, &mut kernel, &observed)?;
        let steps = rules_first(plan(&goal, &observed, &known.ownership));
        flushed.take_first(&mut kernel, steps, notes);
        Ok(())
    });
    flushed.errors.extend(steps.err());
    flushed
}

/// One drain: the objects that decide about new flows go first, then those without an open flow. `first`
/// is false during a wait, where a pass of another process ends the drain.
fn remove(
    known: &Known,
    kernel: &mut Kernel,
    flushed: &mut Flushed,
    log: &mut Log<'_>,
    first: bool,
) {
    let mut trouble = Vec::new();
    for round in 0..ROUNDS {
        match step(known, kernel, flushed, log, (first, round)) {
            Ok(Some(failures)) => trouble = failures,
            // Errors of earlier rounds don't matter: no step is left.
            Ok(None) => return,
            Err(error) => {
                flushed.errors.append(&mut trouble);
                flushed.errors.push(error);
                log.has_begun |= first;
                return;
            }
        }
    }
    if trouble.is_empty() {
        trouble.push("another program keeps changing the objects: drain again".to_owned());
    }
    flushed.errors.extend(trouble);
}

/// Reads the objects and carries out the next steps; returns the failures, or `None` without a step.
fn step(
    known: &Known,
    kernel: &mut Kernel,
    flushed: &mut Flushed,
    log: &mut Log<'_>,
    (first, round): (bool, usize),
) -> Result<Option<Vec<String>>, String> {
    let mut notes = Vec::new();
    let mut unknown = Vec::new();
    let observed = observe(kernel, &known.ownership, &mut notes, &mut unknown)
        .map_err(|error| error.to_string())?;
    if !first && decides(&observed.rules, &known.ownership) {
        return Err(TAKEN_OVER.to_owned());
    }
    let mut drain = drain(known, kernel, &observed)?;
    if (first, round) == (true, 0) && drain.breaks_flows(&observed.rules, &known.ownership) {
        flushed.notes.push(UNPINNED.to_owned());
    }
    let whole = goal(known, &drain, kernel, &observed)?;
    let mut steps = rules_first(plan(&whole, &observed, &known.ownership));
    if steps.is_empty() {
        // No packet gets a path any more, so that the number of flows only falls.
        let flows = flows_on_paths(known.config.kernel.pin_marks())
            .map_err(|error| format!("the open flows are unknown, and keep their path: {error}"))?;
        flushed.left = drain.left(&flows);
        drain.keep(&flows);
        let rest = goal(known, &drain, kernel, &observed)?;
        steps = rules_first(plan(&rest, &observed, &known.ownership));
    }
    if round == 0 {
        flushed.take_first(kernel, steps.clone(), notes);
        if first || !steps.is_empty() {
            log.begin(flushed);
        }
    } else {
        flushed.plan.steps.extend(steps.steps.iter().cloned());
    }
    flushed.errors.extend(
        steps
            .conflicts
            .iter()
            .map(|conflict| conflict.message.clone()),
    );
    if steps.is_empty() {
        flushed.errors.append(&mut unknown);
        flushed.name_orphans(kernel, &observed, &known.ownership);
        return Ok(None);
    }
    let failures = apply_all(steps, kernel, &known.ownership);
    Ok(Some(failures))
}

fn drain(known: &Known, kernel: &mut Kernel, observed: &ObservedState) -> Result<Drain, String> {
    let facts = kernel.facts().ok();
    let mut firewalls = observed.firewalls.values();
    let present = Present {
        rules: &observed.rules,
        routes: &observed.routes,
        ownership: &known.ownership,
        has_firewall: firewalls.any(|found| matches!(found, ObservedFirewall::Owned(_))),
        facts: facts.as_ref(),
    };
    Drain::of(&known.config, known.config.role, present)
}

fn goal(
    known: &Known,
    drain: &Drain,
    kernel: &mut Kernel,
    observed: &ObservedState,
) -> Result<Goal, String> {
    let owned = |kind: BackendKind| match observed.firewalls.get(&kind) {
        Some(ObservedFirewall::Owned(owned)) => Some(&owned.text),
        _ => None,
    };
    let mut kinds = BackendKind::ALL.into_iter();
    let backend = kinds.find(|kind| owned(*kind).is_some());
    let backend = backend.unwrap_or(BackendKind::Nftables);
    let beside = kernel.firewall(backend).marks_forwarded();
    let policy = drain.firewall(&known.config, backend, beside);
    let firewall = match policy {
        Some(ruleset) => {
            let present = owned(backend).map(Vec::as_slice);
            let text = kernel.render_policy(backend, &ruleset, present);
            FirewallGoal::Policy {
                backend,
                text: text.map_err(|error| error.to_string())?,
                ruleset,
            }
        }
        None => Goal::nothing().firewall,
    };
    Ok(Goal {
        routes: drain.routes(),
        rules: drain.rules(),
        firewall,
        on_the_way: None,
        policies: Vec::new(),
        sysctls: Vec::new(),
        frozen: PerFamily::default(),
        refuse_conflicts: false,
    })
}

/// Rules and forward policies, then the firewall, then routes. While rules that decide about new flows
/// exist, the firewall tells their path and lets their answers pass. A forward policy refuses packets
/// without a mark, which the firewall no longer sets.
fn rules_first(mut steps: Plan) -> Plan {
    steps.steps.sort_by_key(|step| match step {
        Step::Rule { .. } | Step::Policy { .. } => 0,
        Step::Firewall { .. } => 1,
        _ => 2,
    });
    steps
}
