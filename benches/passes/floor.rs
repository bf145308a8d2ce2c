//! The floor: the same netlink messages, packed beforehand and sent raw; no ACK but on the last. The
//! transaction of the firewall is a record of its rules, replayed.

use trailblazer::apply::spread;
use trailblazer::firewall::BackendKind;
use trailblazer::kernel::Kernel;
use trailblazer::kernel::route::{self, Write};
use trailblazer::kernel::rule;
use trailblazer::plan::{Action, Plan, Step};

use super::Res;
use super::raw::{self, Packed};
use super::samples::{Rows, timed};
use super::subject::Subject;

/// The netlink messages of a plan, in the kernel's fastest order: no traffic uses the routes yet.
fn packed(plan: &Plan) -> Packed {
    let mut messages = Packed::default();
    for place in spread(&plan.steps) {
        match &plan.steps[place] {
            Step::Route { action, route, .. } => {
                messages.push(|buffer| route::encode(write(*action), route, buffer));
            }
            Step::Rule { action, rule } => {
                messages.push(|buffer| rule::encode(*action == Action::Delete, rule, buffer));
            }
            Step::Nexthop(_) | Step::Firewall { .. } | Step::Policy { .. } | Step::Sysctl(_) => {}
        }
    }
    messages
}

/// The messages that remove everything, last first: ascending deletes of IPv4 cost the kernel
/// several times as much.
fn packed_removal(plan: &Plan) -> Packed {
    let mut messages = Packed::default();
    for step in plan.steps.iter().rev() {
        match step {
            Step::Route { route, .. } => {
                messages.push(|buffer| route::encode(Write::Delete, route, buffer));
            }
            Step::Rule { rule, .. } => messages.push(|buffer| rule::encode(true, rule, buffer)),
            Step::Nexthop(_) | Step::Firewall { .. } | Step::Policy { .. } | Step::Sysctl(_) => {}
        }
    }
    messages
}

fn write(action: Action) -> Write {
    match action {
        Action::Add => Write::Add,
        Action::Replace => Write::Replace,
        Action::Delete => Write::Delete,
    }
}

/// Milliseconds of the first installation of routes and rules at the floor.
pub fn install(plan: &Plan) -> Res<f64> {
    let socket = raw::socket()?;
    let mut all = packed(plan);
    let (sent, took) = timed(|| all.send(&socket));
    sent?;
    Ok(took)
}

/// First installation, dump, one more prefix and removal at the floor.
pub fn live(plan: &Plan, subject: &Subject, rows: &mut Rows) -> Res<()> {
    const NAME: &str = "floor";
    let mut kernel = Kernel::open()?;
    let firewall = kernel.firewall(BackendKind::Nftables);
    let (done, policy) = timed(|| firewall.restore(subject.rules()));
    done?;
    rows.push(NAME, "firewall", policy);
    rows.push(NAME, "first", policy + install(plan)?);
    let socket = raw::socket()?;
    let (count, took) = timed(|| raw::dump(&socket, subject.table()));
    if count? != subject.size() {
        return Err("the floor installed another number of routes".into());
    }
    rows.push(NAME, "no-op", took);
    let mut one = Packed::default();
    one.push(|buffer| route::encode(Write::Add, &subject.another_route(), buffer));
    let (sent, took) = timed(|| one.send(&socket));
    sent?;
    rows.push(NAME, "one more", took);
    let mut one = Packed::default();
    one.push(|buffer| route::encode(Write::Delete, &subject.another_route(), buffer));
    one.send(&socket)?;
    let mut all = packed_removal(plan);
    let (sent, took) = timed(|| all.send(&socket));
    sent?;
    let (done, policy) = timed(|| firewall.remove());
    done?;
    rows.push(NAME, "no firewall", policy);
    rows.push(NAME, "removal", policy + took);
    Ok(())
}
