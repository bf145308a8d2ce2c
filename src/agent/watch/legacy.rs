//! Polls our rules of iptables-legacy.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::poll::{Pauses, Poll, notice};
use crate::agent::shared::Shared;
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::firewall::{FirewallBackend, backend};
use crate::plan::FirewallGoal;
use crate::reconcile::InForce;

/// The interval. A reading runs `iptables-save` and `ip6tables-save`, a few milliseconds of CPU time.
const EVERY: Duration = Duration::from_secs(1);
/// The longest interval while passes can't restore the rules.
const LONGEST: Duration = Duration::from_secs(32);

/// Starts the thread that compares the rules with the state in force.
///
/// # Errors
/// The system refuses a thread.
pub(in crate::agent) fn poll_own(shared: Arc<Shared>) -> io::Result<Poll> {
    Poll::start("firewall", shared, run)
}

fn run(shared: &Shared, pauses: &Pauses) {
    let mut firewall = backend(BackendKind::Iptables);
    let mut pause = EVERY;
    // The state in force at the last report, which the next pass replaces.
    let mut reported: Option<Arc<InForce>> = None;
    while pauses.pause(shared, pause) {
        let Some(in_force) = differs(shared, firewall.as_mut()) else {
            pause = EVERY;
            continue;
        };
        let again = |last: &Arc<InForce>| Arc::ptr_eq(last, &in_force);
        pause = if reported.as_ref().is_some_and(again) {
            (pause * 2).min(LONGEST)
        } else {
            EVERY
        };
        reported = Some(in_force);
        notice(shared, |noticed| {
            noticed.urgent = Some(Instant::now());
            noticed.cause(|| "another program changed the iptables rules".to_owned());
        });
    }
}

/// True if both texts are equal, apart from the rules of a program without any rule in `wanted`: a
/// refused family is left as it is.
fn of_same_programs(found: &[String], wanted: &[String]) -> bool {
    let program = |line: &str| line.split(' ').next().map(str::to_owned);
    let programs: BTreeSet<Option<String>> = wanted.iter().map(|line| program(line)).collect();
    let found = found
        .iter()
        .filter(|line| programs.contains(&program(line)));
    found.eq(wanted)
}

/// The state in force before and after the reading, if the rules differ from that state.
fn differs(shared: &Shared, firewall: &mut dyn FirewallBackend) -> Option<Arc<InForce>> {
    let before = shared.in_force()?;
    let FirewallGoal::Policy {
        backend: BackendKind::Iptables,
        text,
        ..
    } = &before.goal.firewall
    else {
        return None;
    };
    let same = match firewall.observe() {
        Ok(ObservedFirewall::Owned(found)) => of_same_programs(&found.text, text),
        Ok(ObservedFirewall::Absent) => text.is_empty(),
        // The next pass reports these.
        Ok(_) | Err(_) => true,
    };
    let still = shared.in_force()?;
    let unchanged = still.goal.firewall == before.goal.firewall;
    (!same && unchanged).then_some(still)
}
