//! Neighbours: does a gateway answer address resolution (ARP, neighbour discovery)?

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::family_number;
use super::wire::{Frame, WireError, put_address};
use crate::types::{Family, IfIndex};

// linux/neighbour.h and linux/rtnetlink.h.
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
/// Makes the kernel resolve the address as if a packet needed the address.
const NTF_USE: u8 = 1;
/// The place of the state in `struct ndmsg`.
const STATE: usize = 8;

/// A neighbour on a link answers within a few milliseconds.
const WAITS: u32 = 15;
const WAIT: Duration = Duration::from_millis(10);

fn put_neighbour(buffer: &mut Vec<u8>, address: IpAddr, device: IfIndex, flags: u8) {
    buffer.extend_from_slice(&[family_number(Family::of(address)), 0, 0, 0]);
    buffer.extend_from_slice(&device.0.to_ne_bytes());
    buffer.extend_from_slice(&[0, 0, flags, 0]);
    put_address(buffer, NDA_DST, address);
}

/// True while the kernel resolves the address or has given up. An address without an entry counts as
/// resolved: no packet needed the address lately. So does any address on kernels without this
/// question (before 5.0).
///
/// # Errors
/// The kernel gives no answer.
pub fn is_unresolved(
    socket: &mut NetlinkSocket,
    address: IpAddr,
    device: IfIndex,
) -> Result<bool, NetlinkError> {
    let operation = format!("look up the neighbour {address}");
    let request = |buffer: &mut Vec<u8>| put_neighbour(buffer, address, device, 0);
    let decode = |frame: &Frame<'_>| {
        let state = frame.body.get(STATE..STATE + 2);
        let state = state.and_then(|bytes| bytes.try_into().ok());
        let state = state.ok_or(WireError::Malformed("neighbour header"))?;
        Ok(Some(u16::from_ne_bytes(state)))
    };
    let answer = socket.ask(&operation, RTM_GETNEIGH, request, decode)?;
    Ok(answer.is_ok_and(|state| state & (NUD_INCOMPLETE | NUD_FAILED) != 0))
}

/// Makes the kernel resolve an address again. Without privilege nothing happens.
pub fn resolve(socket: &mut NetlinkSocket, address: IpAddr, device: IfIndex) {
    let message = |_, buffer: &mut Vec<u8>| {
        put_neighbour(buffer, address, device, NTF_USE);
        (RTM_NEWNEIGH, 0)
    };
    let _refused = socket.batch("resolve a neighbour", 1, message);
}

/// True if a gateway answers no address resolution now: asks once more before saying so, since the
/// kernel keeps a failed entry while no packet needs the address.
///
/// # Errors
/// The kernel gives no answer.
pub fn is_silent(
    socket: &mut NetlinkSocket,
    address: IpAddr,
    device: IfIndex,
) -> Result<bool, NetlinkError> {
    if !is_unresolved(socket, address, device)? {
        return Ok(false);
    }
    resolve(socket, address, device);
    for _ in 0..WAITS {
        sleep(WAIT);
        if !is_unresolved(socket, address, device)? {
            return Ok(false);
        }
    }
    Ok(true)
}
