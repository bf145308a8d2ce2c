//! Polls the gateways: no notification of the kernel's says that a gateway stopped answering, except
//! those about every neighbour of the network.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::poll::{Pauses, Poll, notice};
use crate::agent::shared::Shared;
use crate::kernel::neighbour::{is_unresolved, resolve};
use crate::kernel::netlink::NetlinkSocket;
use crate::types::IfIndex;

/// The interval. A look asks the kernel one question for each gateway, some microseconds.
const EVERY: Duration = Duration::from_secs(5);

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
    let mut known = BTreeSet::new();
    while pauses.pause(shared, EVERY) {
        let now = unresolved(shared, &mut socket);
        if now == known {
            continue;
        }
        let changed: Vec<_> = now.symmetric_difference(&known).copied().collect();
        known = now;
        notice(shared, |noticed| {
            noticed.event = Some(Instant::now());
            for (gateway, _) in changed {
                noticed.cause(|| format!("the gateway {gateway} stopped or began to answer"));
            }
        });
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
