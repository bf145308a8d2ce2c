//! Destroys single TCP sockets of this host, over `NETLINK_SOCK_DIAG`.

use std::net::IpAddr;

use super::ends::Ends;
use super::sockets::{NETLINK_SOCK_DIAG, REQUEST_LEN, TCP};
use crate::kernel::route::family_number;
use crate::kernel::wire::{Wire, WireError};
use crate::types::Family;

/// `SOCK_DESTROY` (linux/sock_diag.h).
const SOCK_DESTROY: u16 = 21;
/// `INET_DIAG_NOCOOKIE` (linux/inet_diag.h): whichever socket has these ends.
const NO_COOKIE: u32 = u32::MAX;

const ENOENT: i32 = 2;
const EOPNOTSUPP: i32 = 95;

/// The kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destroyed {
    Yes,
    /// No socket of this host has these ends.
    Absent,
    /// The kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    Impossible,
}

pub(super) struct Destroyer(Wire);

impl Destroyer {
    pub(super) fn open() -> Result<Self, WireError> {
        Ok(Destroyer(Wire::open(NETLINK_SOCK_DIAG)?))
    }

    /// Destroys the connection's socket at its source: reads and writes fail with `ECONNABORTED`.
    pub(super) fn destroy(&mut self, ends: Ends) -> Result<Destroyed, WireError> {
        for family in Family::ALL {
            // An IPv4 connection may belong to a socket of either family.
            let Some(request) = request(family, ends) else {
                continue;
            };
            match self.0.ask(SOCK_DESTROY, 0, &request, |_| Ok(())) {
                Ok(()) => return Ok(Destroyed::Yes),
                Err(error) if error.errno() == Some(ENOENT) => {}
                Err(error) if error.errno() == Some(EOPNOTSUPP) => {
                    return Ok(Destroyed::Impossible);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Destroyed::Absent)
    }
}

/// A `struct inet_diag_req_v2` (linux/inet_diag.h) with both ends; `None` for an IPv6 connection and an
/// IPv4 socket.
fn request(family: Family, ends: Ends) -> Option<Vec<u8>> {
    let mut request = vec![0; REQUEST_LEN];
    request[0] = family_number(family);
    request[1] = TCP;
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request[8..10].copy_from_slice(&ends.source.port().to_be_bytes());
    request[10..12].copy_from_slice(&ends.target.port().to_be_bytes());
    for (at, address) in [(12, ends.source.ip()), (28, ends.target.ip())] {
        match (family, address) {
            (Family::Ipv4, IpAddr::V4(v4)) => request[at..at + 4].copy_from_slice(&v4.octets()),
            (Family::Ipv4, IpAddr::V6(_)) => return None,
            (Family::Ipv6, IpAddr::V4(v4)) => {
                request[at..at + 16].copy_from_slice(&v4.to_ipv6_mapped().octets());
            }
            (Family::Ipv6, IpAddr::V6(v6)) => request[at..at + 16].copy_from_slice(&v6.octets()),
        }
    }
    request[48..52].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    request[52..56].copy_from_slice(&NO_COOKIE.to_ne_bytes());
    Some(request)
}
