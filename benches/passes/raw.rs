//! Raw netlink messages: prepared, sent in large batches, and read by their headers alone.

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;
use trailblazer::kernel::route;
use trailblazer::types::Family;

use super::Res;

const HEADER: usize = 16;
/// As large as the batches of the pass.
const BATCH: usize = 32 << 10;

/// Messages, ready to be sent.
#[derive(Debug, Default)]
pub struct Packed {
    batches: Vec<Vec<u8>>,
    last_at: usize,
    sequence: u32,
}

impl Packed {
    /// Adds a message; `body` writes the part after the header, and returns type and flags.
    pub fn push(&mut self, body: impl FnOnce(&mut Vec<u8>) -> (u16, u16)) {
        if self.batches.last().is_none_or(|last| last.len() > BATCH) {
            self.batches.push(Vec::with_capacity(BATCH + 256));
        }
        self.sequence += 1;
        let sequence = self.sequence;
        if let Some(batch) = self.batches.last_mut() {
            self.last_at = batch.len();
            pack(batch, sequence, body);
        }
    }

    /// Sends everything and waits until the last message is done.
    pub fn send(&mut self, socket: &Socket) -> Res<()> {
        let Some(last) = self.batches.last_mut() else {
            return Ok(());
        };
        let flags = [last[self.last_at + 6], last[self.last_at + 7]];
        let flags = u16::from_ne_bytes(flags) | NLM_F_ACK;
        last[self.last_at + 6..self.last_at + 8].copy_from_slice(&flags.to_ne_bytes());
        for batch in &self.batches {
            socket.send_to(batch, &SocketAddr::new(0, 0), 0)?;
        }
        let mut received = Vec::with_capacity(64 << 10);
        loop {
            received.clear();
            socket.recv_from(&mut received, 0)?;
            let message = NetlinkBuffer::new_checked(&received)?;
            if message.message_type() != NLMSG_ERROR {
                continue;
            }
            let code = received.get(HEADER..HEADER + 4).unwrap_or(&[1; 4]);
            if code != [0; 4] {
                return Err(format!("the kernel refused a message of the floor: {code:?}").into());
            }
            if message.sequence_number() == self.sequence {
                return Ok(());
            }
        }
    }
}

fn pack(batch: &mut Vec<u8>, sequence: u32, body: impl FnOnce(&mut Vec<u8>) -> (u16, u16)) {
    let at = batch.len();
    batch.resize(at + HEADER, 0);
    let (kind, flags) = body(batch);
    let length = (batch.len() - at) as u32;
    batch[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    batch[at + 4..at + 6].copy_from_slice(&kind.to_ne_bytes());
    batch[at + 6..at + 8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    batch[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
    batch.resize(batch.len().next_multiple_of(4), 0);
}

/// A route socket with strict checking, so that the kernel filters dumps by table.
pub fn socket() -> Res<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_cap_ack(true)?;
    socket.set_netlink_get_strict_chk(true)?;
    sockopt::set_socket_recv_buffer_size(&socket, 1 << 20)?;
    Ok(socket)
}

/// Counts the routes of a table in both families, looking at message headers only.
pub fn dump(socket: &Socket, table: u32) -> Res<usize> {
    const RTM_GETROUTE: u16 = 26;
    const RTM_NEWROUTE: u16 = 24;
    const RTA_TABLE: u16 = 15;
    let mut count = 0;
    let mut received = Vec::with_capacity(64 << 10);
    for family in Family::ALL {
        let mut request = Vec::new();
        pack(&mut request, 1, |buffer| {
            buffer.extend_from_slice(&[route::family_number(family), 0, 0, 0, 0, 0, 0, 0]);
            buffer.extend_from_slice(&[0; 4]);
            buffer.extend_from_slice(&8u16.to_ne_bytes());
            buffer.extend_from_slice(&RTA_TABLE.to_ne_bytes());
            buffer.extend_from_slice(&table.to_ne_bytes());
            (RTM_GETROUTE, NLM_F_DUMP)
        });
        socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        'dump: loop {
            received.clear();
            socket.recv_from(&mut received, 0)?;
            let mut rest = &received[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)?;
                match message.message_type() {
                    RTM_NEWROUTE => count += 1,
                    // The dump of a table that was never used is refused with ENOENT.
                    NLMSG_DONE | NLMSG_ERROR => break 'dump,
                    _ => {}
                }
                let length = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or(&[]);
            }
        }
    }
    Ok(count)
}
