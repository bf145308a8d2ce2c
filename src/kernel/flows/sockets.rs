//! The host's TCP and UDP sockets, over `NETLINK_SOCK_DIAG`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ends::Ends;
use crate::kernel::route::{family_number, family_of};
use crate::kernel::wire::{DUMP, Wire, WireError};
use crate::types::Family;

/// `NETLINK_SOCK_DIAG` (linux/netlink.h).
pub(super) const NETLINK_SOCK_DIAG: isize = 4;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Length of `struct inet_diag_req_v2` (linux/inet_diag.h).
const REQUEST_LEN: usize = 56;

/// Socket states (net/tcp_states.h).
pub(super) mod state {
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SYN_RECV: u8 = 3;
    pub(in super::super) const FIN_WAIT1: u8 = 4;
    pub(in super::super) const FIN_WAIT2: u8 = 5;
    pub(in super::super) const CLOSE_WAIT: u8 = 8;
    pub(in super::super) const LAST_ACK: u8 = 9;
    pub(in super::super) const LISTEN: u8 = 10;
    pub(in super::super) const CLOSING: u8 = 11;
}

/// States in which a connection may still carry packets.
pub(super) const OPEN: [u8; 7] = [
    state::ESTABLISHED,
    state::SYN_RECV,
    state::FIN_WAIT1,
    state::FIN_WAIT2,
    state::CLOSE_WAIT,
    state::LAST_ACK,
    state::CLOSING,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    /// IP protocol number.
    pub(super) protocol: u8,
    /// The direction from the peer to this host.
    pub(super) ends: Ends,
    /// See [`state`].
    pub(super) state: u8,
}

#[derive(Debug, Default)]
pub(super) struct Listeners(HashSet<SocketAddr>);

impl Listeners {
    #[cfg(test)]
    pub(super) fn at(addresses: &[&str]) -> Listeners {
        Listeners(addresses.iter().map(|text| text.parse().unwrap()).collect())
    }

    /// True if a socket listens at this address, or at all addresses. A socket at `::` accepts IPv4
    /// too.
    pub(super) fn listens(&self, local: SocketAddr) -> bool {
        let anywhere: &[IpAddr] = match local {
            SocketAddr::V4(_) => &[
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ],
            SocketAddr::V6(_) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        let any = |address: &IpAddr| self.0.contains(&SocketAddr::new(*address, local.port()));
        self.0.contains(&local) || anywhere.iter().any(any)
    }
}

/// True if the error means that the kernel can't list TCP sockets.
pub(super) fn is_absent(error: &WireError) -> bool {
    // ENOENT: no handler for TCP. EINVAL: none for the family. EPROTONOSUPPORT: no sock_diag.
    matches!(error.errno(), Some(2 | 22 | 93 | 95))
}

/// Reads the listening TCP sockets of both families.
pub(super) fn listeners() -> Result<Listeners, WireError> {
    let mut found = HashSet::new();
    each(TCP, 1 << state::LISTEN, |_, local, _| {
        found.insert(local);
    })?;
    Ok(Listeners(found))
}

/// Hands the open TCP connections of both families on, one by one.
pub(super) fn each_connection(mut hand_on: impl FnMut(Socket)) -> Result<(), WireError> {
    let states = OPEN.iter().fold(0, |bits: u32, state| bits | 1 << state);
    each(TCP, states, |state, target, source| {
        let ends = Ends { source, target };
        hand_on(Socket {
            protocol: TCP,
            ends,
            state,
        });
    })
}

/// Hands the connected UDP sockets of both families on, one by one, in the direction from the peer.
pub(super) fn each_connected_udp(mut hand_on: impl FnMut(Socket)) -> Result<(), WireError> {
    // The kernel calls a connected UDP socket established.
    each(UDP, 1 << state::ESTABLISHED, |state, target, source| {
        let ends = Ends { source, target };
        hand_on(Socket {
            protocol: UDP,
            ends,
            state,
        });
    })
}

fn each(
    protocol: u8,
    states: u32,
    mut hand_on: impl FnMut(u8, SocketAddr, SocketAddr),
) -> Result<(), WireError> {
    let mut wire = Wire::open(NETLINK_SOCK_DIAG)?;
    for family in Family::ALL {
        let request = request(family, protocol, states);
        wire.ask(SOCK_DIAG_BY_FAMILY, DUMP, &request, |frame| {
            let (state, local, remote) =
                parse(frame.body).ok_or(WireError::Malformed("a socket"))?;
            hand_on(state, local, remote);
            Ok(())
        })?;
    }
    Ok(())
}

/// A `struct inet_diag_req_v2` (linux/inet_diag.h) for the sockets in these states, a bit each.
pub(super) fn request(family: Family, protocol: u8, states: u32) -> Vec<u8> {
    let mut request = vec![0; REQUEST_LEN];
    request[0] = family_number(family);
    request[1] = protocol;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request
}

/// State, local and remote end out of a `struct inet_diag_msg` (linux/inet_diag.h).
pub(super) fn parse(body: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (family, state) = (family_of(*body.first()?)?, *body.get(1)?);
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        match family {
            Family::Ipv4 => {
                let octets: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            }
            Family::Ipv6 => {
                let octets: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
                // The packets of an IPv6 socket with mapped addresses are IPv4.
                Some(Ipv6Addr::from(octets).to_canonical())
            }
        }
    };
    let local = SocketAddr::new(address(8)?, port(4)?);
    let remote = SocketAddr::new(address(24)?, port(6)?);
    Some((state, local, remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_connection_of_an_ipv6_socket_is_an_ipv4_flow() {
        let mut body = vec![0; 72];
        body[0] = family_number(Family::Ipv6);
        body[1] = state::ESTABLISHED;
        body[4..8].copy_from_slice(&[0, 22, 0x30, 0x39]);
        let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
        body[8..24].copy_from_slice(&mapped.octets());
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        body[24..40].copy_from_slice(&mapped.octets());
        let (state, local, remote) = parse(&body).unwrap();
        assert_eq!(state, state::ESTABLISHED);
        assert_eq!(local.to_string(), "10.0.0.1:22");
        assert_eq!(remote.to_string(), "192.0.2.1:12345");
        assert!(parse(&body[..30]).is_none());
    }

    #[test]
    fn an_ipv6_wildcard_accepts_ipv4_and_not_vice_versa() {
        let at = |text: &str| Listeners(HashSet::from([text.parse().unwrap()]));
        let listens = |found: Listeners, local: &str| found.listens(local.parse().unwrap());
        assert!(listens(at("[::]:22"), "10.0.0.1:22"));
        assert!(listens(at("[::]:22"), "[2001:db8::1]:22"));
        assert!(listens(at("0.0.0.0:22"), "10.0.0.1:22"));
        assert!(!listens(at("0.0.0.0:22"), "[2001:db8::1]:22"));
        assert!(!listens(at("[::]:22"), "10.0.0.1:23"));
        assert!(!listens(at("10.0.0.2:22"), "10.0.0.1:22"));
    }
}
