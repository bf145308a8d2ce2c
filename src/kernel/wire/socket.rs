//! A blocking netlink socket.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::error::{ANSWER_WITHIN, WireError};
use super::message::{
    ACK, DUMP, Final, Frame, HEADER_LEN, REQUEST, final_of, frames, push_message,
};
use super::own;

const NLM_F_DUMP_INTR: u16 = 0x10;
/// Socket buffers in bytes. One transaction is one datagram: 10,000 IPv6 intervals take 0.7 MB.
const BUFFER: usize = 8 << 20;
/// The kernel never puts more than 32 KiB into one datagram of a dump (net/netlink/af_netlink.c).
const RECEIVE: usize = 64 << 10;

/// A blocking netlink socket in the network namespace of the thread that opened the socket.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    protocol: isize,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        own::closed(self.protocol, self.port);
    }
}

impl Wire {
    /// Opens a socket of a netlink protocol.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` if the kernel lacks the protocol.
    pub fn open(protocol: isize) -> io::Result<Wire> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        own::opened(protocol, port);
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, side, Some(ANSWER_WITHIN))?;
        }
        // A buffer beyond the host's limit takes CAP_NET_ADMIN in the initial user namespace. In
        // a container, the plain call gets as much as the limit allows.
        if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, BUFFER)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        Ok(Wire {
            socket,
            protocol,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        })
    }

    /// Switches strict checking of dump requests on (`NETLINK_GET_STRICT_CHK`). Without strict
    /// checking the kernel silently ignores unsupported filters.
    ///
    /// # Errors
    /// On kernels before 4.20.
    pub fn strict(self) -> io::Result<Wire> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// The port: the kernel's name for the socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The next sequence number.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one datagram of whole messages.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Sends one request and passes each message of the answer to `each`.
    ///
    /// With [`DUMP`] in `flags`, a dump that a change interrupted is [`WireError::Interrupted`],
    /// and a dump that ends with an error is that error: neither is ever a short list.
    pub fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let sequence = self.next_sequence();
        let ack = if flags & DUMP == DUMP { 0 } else { ACK };
        let mut request = Vec::with_capacity(HEADER_LEN + body.len());
        push_message(&mut request, kind, REQUEST | ack | flags, sequence, body);
        self.send(&request)?;
        let mut interrupted = false;
        loop {
            self.receive()?;
            for frame in frames(&self.buffer)? {
                if frame.sequence != sequence {
                    continue;
                }
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match final_of(&frame)? {
                    None => each(frame)?,
                    Some(Final::Refused(refusal)) => return Err(refusal),
                    Some(Final::Ok) if interrupted => return Err(WireError::Interrupted),
                    Some(Final::Ok) => return Ok(()),
                }
            }
        }
    }

    /// Reads answers until the kernel acknowledges or refuses the message `last`; returns the
    /// refusals in the kernel's order. The caller has requested an acknowledgement of `last` and of
    /// no other message. A refusal of `whole` (the head of a batch) ends the reading too.
    pub fn settle(&mut self, last: u32, whole: Option<u32>) -> Result<Vec<WireError>, WireError> {
        let mut refusals = Vec::new();
        loop {
            self.receive()?;
            for frame in frames(&self.buffer)? {
                let ends = frame.sequence == last || Some(frame.sequence) == whole;
                match final_of(&frame)? {
                    Some(Final::Refused(refusal)) => refusals.push(refusal),
                    Some(Final::Ok) | None => {}
                }
                if ends {
                    return Ok(refusals);
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), WireError> {
        loop {
            self.buffer.clear();
            // On a socket with a receive timeout, a signal interrupts even if its handler restarts
            // system calls (signal(7)).
            let (_, sender) = match self.socket.recv_from(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            // Any process may send to our port: accept the kernel's messages only (port 0).
            if sender.port_number() == 0 {
                return Ok(());
            }
        }
    }
}
