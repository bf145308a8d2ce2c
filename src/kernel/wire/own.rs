//! The netlink ports of this process.
//!
//! The kernel stamps each notification with the port of the socket that made the change
//! (`nlmsg_pid`, netlink(7)), so that a listener recognises changes of this process. A listener may
//! read a notification after the socket was closed: the ports of closed sockets are remembered for
//! a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time for which a closed socket's port counts as ours: notifications wait in a listener's buffer
/// during a whole pass. The kernel reuses a port only for a process of the same PID, or by chance.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Netlink protocol and port → time of closing.
type OwnPorts = BTreeMap<(isize, u32), Option<Instant>>;

static PORTS: Mutex<OwnPorts> = Mutex::new(BTreeMap::new());

fn ports() -> MutexGuard<'static, OwnPorts> {
    // A map of plain values is consistent wherever its holder panicked.
    PORTS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Records an opened socket of ours, or the PID of a child process: the kernel gives the first
/// socket of a process its PID as the port.
pub fn opened(protocol: isize, port: u32) {
    let mut ports = ports();
    ports.retain(|_, closed| closed.is_none_or(|at| at.elapsed() < REMEMBERED));
    ports.insert((protocol, port), None);
}

/// Records that a socket was closed.
pub fn closed(protocol: isize, port: u32) {
    if let Some(entry) = ports().get_mut(&(protocol, port)) {
        *entry = Some(Instant::now());
    }
}

/// The ports of the open sockets.
pub fn open_ports(protocol: isize) -> Vec<u32> {
    let ports = ports();
    let open = ports
        .iter()
        .filter(|((of, port), closed)| *of == protocol && *port != 0 && closed.is_none());
    open.map(|((_, port), _)| *port).collect()
}

/// True if the port is, or was until recently, one of ours. Port 0 is the kernel itself.
pub fn is_own(protocol: isize, port: u32) -> bool {
    port != 0 && ports().contains_key(&(protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stays_ours_for_a_while_after_closing() {
        // No socket has this protocol, so that parallel tests don't interfere.
        const PROTOCOL: isize = 999;
        assert!(!is_own(PROTOCOL, 7));
        opened(PROTOCOL, 7);
        assert_eq!(open_ports(PROTOCOL), [7]);
        closed(PROTOCOL, 7);
        assert_eq!(open_ports(PROTOCOL), [0; 0]);
        assert!(is_own(PROTOCOL, 7));
        assert!(!is_own(PROTOCOL, 8));
        assert!(!is_own(PROTOCOL + 1, 7));
        opened(PROTOCOL, 0);
        assert!(!is_own(PROTOCOL, 0), "port 0 is the kernel");
    }
}
