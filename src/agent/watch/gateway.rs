//! Watches the gateways: one that answers no address resolution any more, and its return.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::poll::{Pauses, Poll, notice};
use crate::agent::shared::Shared;
use crate::kernel::events::GivenUp;
use crate::kernel::neighbour::{is_unresolved, resolve};
use crate::kernel::netlink::NetlinkSocket;
use crate::types::IfIndex;

/// The interval of looks while a gateway does not answer, or without notifications. A look asks the kernel
/// one question for each gateway, some microseconds.
const EVERY: Duration = Duration::from_secs(5);
/// The longest time without a look: the kernel drops notifications under a lack of memory.
const LONGEST: Duration = Duration::from_secs(300);
/// Notifications within this time are one: a scan of a network fails for each of its addresses.
const BURST: Duration = Duration::from_millis(500);

/// Starts the thread that requests a pass when a gateway stops or begins to answer.
///
/// # Errors
/// The system refuses a thread.
pub(in crate::agent) fn poll_gateways(shared: Arc<Shared>) -> io::Result<Poll> {
    Poll::start("gateways", shared, run)
}

fn run(shared: &Shared, pauses: &Pauses) {
    let Ok(mut socket) = NetlinkSocket::open() else {
        return;
    };
    let given_up = GivenUp::listen();
    if let Err(error) = &given_up {
        tracing::debug!("{error}");
    }
    // The kernel may have given a gateway up before.
    let mut pause = EVERY;
    let mut known = BTreeSet::new();
    while pauses.pause(shared, pause) {
        if let Ok(given_up) = &given_up {
            given_up.forget();
        }
        let now = unresolved(shared, &mut socket);
        if now != known {
            let changed: Vec<_> = now.symmetric_difference(&known).copied().collect();
            known = now;
            notice(shared, |noticed| {
                noticed.event = Some(Instant::now());
                for (gateway, _) in changed {
                    noticed.cause(|| format!("the gateway {gateway} stopped or began to answer"));
                }
            });
        }
        pause = EVERY;
        if let Ok(given_up) = &given_up
            && known.is_empty()
        {
            let heard = given_up.wait(LONGEST);
            pause = if heard { BURST } else { Duration::ZERO };
        }
    }
}

/// The gateways without an answer. The kernel looks for them again: without packets it would not
/// notice that they are back.
fn unresolved(shared: &Shared, socket: &mut NetlinkSocket) -> BTreeSet<(IpAddr, IfIndex)> {
    let Some(in_force) = shared.in_force() else {
        return BTreeSet::new();
    };
    let mut silent = BTreeSet::new();
    for (gateway, device) in in_force.gateways() {
        if is_unresolved(socket, gateway, device).unwrap_or(false) {
            resolve(socket, gateway, device);
            silent.insert((gateway, device));
        }
    }
    silent
}
