//! Which netlink ports are this process's own.
//!
//! The kernel stamps each notification with the port of the socket that caused it
//! (`nlmsg_pid`, netlink(7)): so a listener tells its own process's changes from others'. A
//! notification may be read after the socket that caused it was closed, so ports are remembered
//! for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// For how long a closed socket's port counts as ours: notifications wait in a listener's buffer
/// for as long as a pass takes. The kernel gives a port away again only to a process of that
/// number, or by chance.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Netlink protocol and port → since when it is closed.
type Ports = BTreeMap<(isize, u32), Option<Instant>>;

static PORTS: Mutex<Ports> = Mutex::new(BTreeMap::new());

fn ports() -> MutexGuard<'static, Ports> {
    // A map of plain values is whole wherever a holder panicked.
    PORTS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A socket of ours was opened. Also for a child's: the kernel gives its first socket the number
/// of the process.
pub fn opened(protocol: isize, port: u32) {
    let mut ports = ports();
    ports.retain(|_, closed| closed.is_none_or(|at| at.elapsed() < REMEMBERED));
    ports.insert((protocol, port), None);
}

/// It was closed.
pub fn closed(protocol: isize, port: u32) {
    if let Some(entry) = ports().get_mut(&(protocol, port)) {
        *entry = Some(Instant::now());
    }
}

/// The ports of the sockets that are open now.
pub fn open_ports(protocol: isize) -> Vec<u32> {
    let ports = ports();
    let open = ports
        .iter()
        .filter(|((of, port), closed)| *of == protocol && *port != 0 && closed.is_none());
    open.map(|((_, port), _)| *port).collect()
}

/// Whether the port is, or was just now, one of ours. Port 0 is the kernel itself.
pub fn is_own(protocol: isize, port: u32) -> bool {
    port != 0 && ports().contains_key(&(protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_ours_also_for_a_while_after_it_was_closed() {
        // A protocol that no socket has, so that tests side by side don't meet.
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
        assert!(!is_own(PROTOCOL, 0), "the kernel is never us");
    }
}
