//! Neighbours (ARP, neighbour discovery): their states, and whether a gateway answers.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use super::netlink::{NetlinkError, NetlinkSocket};
use super::route::family_number;
use super::wire::{Frame, WireError, each_attribute, put_address, u16_at, u32_at};
use crate::objects::NeighbourState;
use crate::types::{Family, IfIndex};

// linux/neighbour.h and linux/rtnetlink.h.
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Makes the kernel resolve the address as if a packet needed the address.
const NTF_USE: u8 = 1;
/// Length of `struct ndmsg`, and the places of interface and state inside.
const NDMSG: usize = 12;
const IFINDEX: usize = 4;
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
    let entry = look_up(socket, address, device)?;
    let state = entry.and_then(|entry| entry.state);
    Ok(state.is_some_and(NeighbourState::is_unresolved))
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

/// The link-layer address of a permanent entry; `None` for another entry or none.
///
/// # Errors
/// The kernel gives no answer.
pub fn permanent(
    socket: &mut NetlinkSocket,
    address: IpAddr,
    device: IfIndex,
) -> Result<Option<String>, NetlinkError> {
    let entry = look_up(socket, address, device)?;
    Ok(entry.and_then(|entry| entry.permanent_link_address()))
}

fn look_up(
    socket: &mut NetlinkSocket,
    address: IpAddr,
    device: IfIndex,
) -> Result<Option<Entry>, NetlinkError> {
    let operation = format!("look up the neighbour {address}");
    let request = |buffer: &mut Vec<u8>| put_neighbour(buffer, address, device, 0);
    let decode = |frame: &Frame<'_>| Ok(Some(Entry::read(frame.body)?));
    let answer = socket.ask(&operation, RTM_GETNEIGH, request, decode)?;
    Ok(answer.ok())
}

/// A message about a neighbour.
struct Entry {
    device: IfIndex,
    /// `None` for an entry without a state, and for states unknown to this program.
    state: Option<NeighbourState>,
    /// `None` for families whose addresses have other lengths.
    address: Option<IpAddr>,
    link_layer: Vec<u8>,
}

impl Entry {
    fn read(body: &[u8]) -> Result<Entry, WireError> {
        let header = body.split_at_checked(NDMSG);
        let (header, list) = header.ok_or(WireError::Malformed("neighbour header"))?;
        let mut entry = Entry {
            device: IfIndex(u32_at(header, IFINDEX)?),
            state: NeighbourState::of(u16_at(header, STATE)?),
            address: None,
            link_layer: Vec::new(),
        };
        for attribute in each_attribute(list) {
            let attribute = attribute?;
            match attribute.kind {
                NDA_DST => entry.address = attribute.address().ok(),
                NDA_LLADDR => entry.link_layer = attribute.payload.to_vec(),
                _ => {}
            }
        }
        Ok(entry)
    }

    /// `None` for another state, and for links without such addresses: tunnels.
    fn permanent_link_address(&self) -> Option<String> {
        if self.state != Some(NeighbourState::Permanent) {
            return None;
        }
        let bytes = self.link_layer.iter();
        let text: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
        (!text.is_empty()).then(|| text.join(":"))
    }
}

/// An entry of a neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub device: IfIndex,
    pub address: IpAddr,
    pub state: NeighbourState,
}

/// All entries of both families.
///
/// # Errors
/// The kernel refuses the dump.
pub fn dump(socket: &mut NetlinkSocket) -> Result<Vec<Neighbour>, NetlinkError> {
    let request = |buffer: &mut Vec<u8>| buffer.extend_from_slice(&[0; NDMSG]);
    socket.dump("read the neighbours", RTM_GETNEIGH, request, |frame| {
        if frame.kind != RTM_NEWNEIGH {
            return Ok(None);
        }
        decode(frame.body)
    })
}

/// Reads a message; `None` for entries of bridges, and for entries without a state.
fn decode(body: &[u8]) -> Result<Option<Neighbour>, WireError> {
    let entry = Entry::read(body)?;
    let known = entry.state.zip(entry.address);
    Ok(known.map(|(state, address)| Neighbour {
        device: entry.device,
        address,
        state,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Attributes;
    use super::*;

    #[test]
    fn states_and_addresses_are_read_and_odd_entries_left_out() {
        let entry = |state: u16, address: &[u8]| {
            let mut body = vec![2, 0, 0, 0, 7, 0, 0, 0];
            body.extend_from_slice(&state.to_ne_bytes());
            body.extend_from_slice(&[0, 1]);
            body.extend(Attributes::new().put(NDA_DST, address).into_bytes());
            decode(&body).unwrap()
        };
        let found = entry(0x20, &[10, 0, 1, 10]).unwrap();
        assert_eq!(found.state, NeighbourState::Failed);
        assert_eq!(found.address, IpAddr::from([10, 0, 1, 10]));
        assert_eq!(
            entry(0x02, &[0; 16]).unwrap().state,
            NeighbourState::Reachable
        );
        assert_eq!(entry(0, &[10, 0, 1, 10]), None);
        assert_eq!(entry(0x80, &[1; 6]), None);
        decode(&[0; 4]).unwrap_err();
    }

    #[test]
    fn link_address_of_a_permanent_entry_is_read() {
        let entry = |state: u16, link_address: &[u8]| {
            let mut body = vec![2, 0, 0, 0, 7, 0, 0, 0];
            body.extend_from_slice(&state.to_ne_bytes());
            body.extend_from_slice(&[0, 1]);
            let list = Attributes::new().put(NDA_LLADDR, link_address);
            body.extend(list.into_bytes());
            Entry::read(&body).unwrap().permanent_link_address()
        };
        let address = [2, 0, 0, 0, 0, 0xab];
        assert_eq!(entry(0x80, &address).as_deref(), Some("02:00:00:00:00:ab"));
        assert_eq!(entry(0x02, &address), None);
        assert_eq!(entry(0x80, &[]), None, "a tunnel without such addresses");
    }
}
