//! Polls the rules of iptables-legacy, whose changes the kernel doesn't announce.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::rules_changed;
use crate::agent::shared::Shared;
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::kernel::firewall::{FirewallBackend, backend};
use crate::plan::FirewallGoal;
use crate::reconcile::InForce;

/// The interval. A reading runs `iptables-save` and `ip6tables-save`, a few milliseconds of CPU time.
const EVERY: Duration = Duration::from_secs(1);
/// The longest interval while passes can't restore the rules.
const LONGEST: Duration = Duration::from_secs(32);

/// A thread that compares the rules with the state in force. Dropping the value ends the thread.
#[derive(Debug)]
pub(in crate::agent) struct FirewallPoll {
    ended: Arc<AtomicBool>,
}

impl FirewallPoll {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(shared: Arc<Shared>) -> std::io::Result<FirewallPoll> {
        let ended = Arc::new(AtomicBool::new(false));
        let poll = FirewallPoll {
            ended: Arc::clone(&ended),
        };
        std::thread::Builder::new()
            .name("firewall".to_owned())
            .spawn(move || run(&shared, &ended))?;
        Ok(poll)
    }
}

impl Drop for FirewallPoll {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn run(shared: &Shared, ended: &AtomicBool) {
    let mut firewall = backend(BackendKind::Iptables);
    let mut pause = EVERY;
    // The state in force at the last report, which the next pass replaces.
    let mut reported: Option<Arc<InForce>> = None;
    loop {
        std::thread::sleep(pause);
        if ended.load(Ordering::SeqCst) || shared.is_stopping() {
            return;
        }
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
        rules_changed(shared);
    }
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
        Ok(ObservedFirewall::Owned(found)) => found.text == *text,
        Ok(ObservedFirewall::Absent) => text.is_empty(),
        // The next pass reports these.
        Ok(_) | Err(_) => true,
    };
    let still = shared.in_force()?;
    let unchanged = still.goal.firewall == before.goal.firewall;
    (!same && unchanged).then_some(still)
}
