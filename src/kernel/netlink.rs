//! A blocking NETLINK_ROUTE socket: complete dumps, batched writes, single look-ups.
//!
//! Three rules hold here for everybody above:
//! - A dump is complete or an error. The kernel reports a failed one as `NLMSG_DONE` with a
//!   negative code, which looks like an empty table to who doesn't look.
//! - A batch asks for no ACK but on its last message: errors are always answered, successes
//!   implied, and the last ACK is the barrier. With an ACK for each, 256 overrun the socket.
//! - Nothing waits for ever: the socket has a receive timeout.

use std::io;
use std::time::Duration;

use rtnetlink::packet_core::{
    DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;
use thiserror::Error;

use super::attribute::{self as wire, HEADER, Malformed, align};
use super::errno::KernelError;

/// How long an answer of the kernel may take; it answers in microseconds unless its lock is held.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A dump that was interrupted by a change is repeated this often (as Felix does).
const DUMP_ATTEMPTS: usize = 5;
/// Messages a batch: were all of them refused, their answers (about 800 bytes of socket memory
/// each) still fit the default receive buffer of 212,992 bytes, which the kernel doubles.
const BATCH_MESSAGES: usize = 250;
/// Bytes a batch; 32 KiB were measured as good as 1 MiB (DESIGN, "Measured").
const BATCH_BYTES: usize = 32 << 10;
/// What we ask for as receive buffer.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel fills dump replies up to 32 KiB when the reader's buffer allows it.
const READ_SIZE: usize = 64 << 10;

/// Why talking to the kernel failed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink: {operation}: {source}")]
    Io {
        /// What was attempted.
        operation: String,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The kernel dropped answers: the outcome is unknown.
    #[error(
        "netlink: {operation}: the kernel dropped answers (receive buffer overrun); the outcome is unknown, look again"
    )]
    Overrun {
        /// What was attempted.
        operation: String,
    },
    /// The kernel refused.
    #[error("{operation}: {error}{}", .error.advice())]
    Refused {
        /// What was attempted.
        operation: String,
        /// Its answer.
        error: KernelError,
    },
    /// The same dump was interrupted by changes every time.
    #[error("{operation}: changed while being read, {DUMP_ATTEMPTS} times in a row; try again")]
    Interrupted {
        /// What was read.
        operation: String,
    },
    /// A message that we can't read.
    #[error("{operation}: the kernel's answer is malformed ({what})")]
    Malformed {
        /// What was read.
        operation: String,
        /// Which part.
        what: &'static str,
    },
}

impl NetlinkError {
    /// The errno of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { error, .. } => Some(error.errno),
            NetlinkError::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// An open socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

/// A refused message of a batch: its place, and the kernel's answer.
pub type Refusal = (usize, KernelError);

impl NetlinkSocket {
    /// Opens a socket in the current network namespace, with strict checking of requests (else
    /// the kernel ignores filters in silence) and the kernel's explanations switched on.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Self::open_socket().map_err(|source| NetlinkError::Io {
            operation: "open a route socket".into(),
            source,
        })?;
        Ok(NetlinkSocket {
            socket,
            sequence: 0,
            received: Vec::with_capacity(READ_SIZE),
        })
    }

    fn open_socket() -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        // FORCE needs CAP_NET_ADMIN in the initial user namespace; without it the limit of
        // net.core.rmem_max applies, and the default buffer serves too.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(socket)
    }

    /// Dumps: `request` writes the fixed header and attributes, `decode` turns one message
    /// (type, payload) into at most one value. Repeated when interrupted; complete or an error.
    pub fn dump<T>(
        &mut self,
        operation: &str,
        message_type: u16,
        request: impl Fn(&mut Vec<u8>),
        mut decode: impl FnMut(u16, &[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if self.dump_once(operation, message_type, &request, &mut decode, &mut found)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Interrupted {
            operation: operation.to_owned(),
        })
    }

    /// One attempt; false when it was interrupted.
    fn dump_once<T>(
        &mut self,
        operation: &str,
        message_type: u16,
        request: &impl Fn(&mut Vec<u8>),
        decode: &mut impl FnMut(u16, &[u8]) -> Result<Option<T>, Malformed>,
        found: &mut Vec<T>,
    ) -> Result<bool, NetlinkError> {
        let mut batch = Vec::new();
        let sequence = self.append(
            &mut batch,
            message_type,
            NLM_F_REQUEST | NLM_F_DUMP,
            request,
        );
        self.send(operation, &batch)?;
        let mut whole = true;
        loop {
            self.receive(operation)?;
            for message in Messages(&self.received) {
                let message = message.map_err(|what| malformed(operation, what))?;
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => {
                        if let Some(error) = done_error(message.payload) {
                            return refused(operation, error);
                        }
                        return Ok(whole);
                    }
                    NLMSG_ERROR => {
                        if let Some(error) = answer_of(message.payload) {
                            return refused(operation, error);
                        }
                    }
                    kind => {
                        if let Some(value) = decode(kind, message.payload)
                            .map_err(|what| malformed(operation, what))?
                        {
                            found.push(value);
                        }
                    }
                }
            }
        }
    }

    /// Asks one question and gives the answer's payload, or the kernel's refusal (which may be
    /// an answer too: a look-up that ends in `unreachable` is refused with EHOSTUNREACH).
    pub fn ask(
        &mut self,
        operation: &str,
        message_type: u16,
        request: impl Fn(&mut Vec<u8>),
    ) -> Result<Result<Vec<u8>, KernelError>, NetlinkError> {
        let mut batch = Vec::new();
        let sequence = self.append(&mut batch, message_type, NLM_F_REQUEST, request);
        self.send(operation, &batch)?;
        loop {
            self.receive(operation)?;
            for message in Messages(&self.received) {
                let message = message.map_err(|what| malformed(operation, what))?;
                if message.sequence != sequence {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    if let Some(error) = answer_of(message.payload) {
                        return Ok(Err(error));
                    }
                } else {
                    return Ok(Ok(message.payload.to_vec()));
                }
            }
        }
    }

    /// Sends many messages, few at a time, and gives the refused ones. Later messages are
    /// carried out although an earlier one was refused: put only what may be done in any case
    /// into one call.
    pub fn batch(
        &mut self,
        operation: &str,
        count: usize,
        mut message: impl FnMut(usize, &mut Vec<u8>) -> (u16, u16),
    ) -> Result<Vec<Refusal>, NetlinkError> {
        let mut refusals = Vec::new();
        let mut buffer = Vec::with_capacity(BATCH_BYTES + 256);
        let mut next = 0;
        while next < count {
            buffer.clear();
            let first = next;
            let first_sequence = self.sequence.wrapping_add(1);
            let mut last_at = 0;
            while next < count && next - first < BATCH_MESSAGES && buffer.len() < BATCH_BYTES {
                last_at = buffer.len();
                self.sequence = self.sequence.wrapping_add(1);
                buffer.resize(last_at + HEADER, 0);
                let (kind, flags) = message(next, &mut buffer);
                finish(
                    &mut buffer,
                    last_at,
                    kind,
                    NLM_F_REQUEST | flags,
                    self.sequence,
                );
                next += 1;
            }
            let flags = u16::from_ne_bytes([buffer[last_at + 6], buffer[last_at + 7]]) | NLM_F_ACK;
            buffer[last_at + 6..last_at + 8].copy_from_slice(&flags.to_ne_bytes());
            self.send(operation, &buffer)?;
            self.collect(
                operation,
                first,
                first_sequence,
                next - first,
                &mut refusals,
            )?;
        }
        Ok(refusals)
    }

    /// Reads answers until that of the batch's last message.
    fn collect(
        &mut self,
        operation: &str,
        first: usize,
        first_sequence: u32,
        count: usize,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), NetlinkError> {
        loop {
            self.receive(operation)?;
            for message in Messages(&self.received) {
                let message = message.map_err(|what| malformed(operation, what))?;
                // Answers to an earlier batch that timed out lie outside.
                let place = message.sequence.wrapping_sub(first_sequence) as usize;
                if message.kind != NLMSG_ERROR || place >= count {
                    continue;
                }
                if let Some(error) = answer_of(message.payload) {
                    refusals.push((first + place, error));
                }
                if place + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    fn append(
        &mut self,
        buffer: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        body: impl Fn(&mut Vec<u8>),
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let at = buffer.len();
        buffer.resize(at + HEADER, 0);
        body(buffer);
        finish(buffer, at, kind, flags, self.sequence);
        self.sequence
    }

    fn send(&self, operation: &str, buffer: &[u8]) -> Result<(), NetlinkError> {
        self.socket
            .send_to(buffer, &SocketAddr::new(0, 0), 0)
            .map(drop)
            .map_err(|source| NetlinkError::Io {
                operation: operation.to_owned(),
                source,
            })
    }

    /// Reads one datagram of the kernel into `received`.
    fn receive(&mut self, operation: &str) -> Result<(), NetlinkError> {
        loop {
            self.received.clear();
            match self.socket.recv_from(&mut self.received, 0) {
                // Port 0 is the kernel; anybody may send to a netlink socket.
                Ok((_, from)) if from.port_number() == 0 => return Ok(()),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    return Err(NetlinkError::Overrun {
                        operation: operation.to_owned(),
                    });
                }
                Err(source) => {
                    return Err(NetlinkError::Io {
                        operation: operation.to_owned(),
                        source,
                    });
                }
            }
        }
    }
}

/// Writes `struct nlmsghdr` (linux/netlink.h) in front of a message that begins at `at`.
fn finish(buffer: &mut Vec<u8>, at: usize, kind: u16, flags: u16, sequence: u32) {
    let length = (buffer.len() - at) as u32;
    buffer[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    buffer[at + 4..at + 6].copy_from_slice(&kind.to_ne_bytes());
    buffer[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
    buffer[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
    buffer.resize(at + align(length as usize), 0);
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of one datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Ok(header) = NetlinkBuffer::new_checked(self.0) else {
            self.0 = &[];
            return Some(Err(Malformed("message header")));
        };
        let length = header.length() as usize;
        let message = Message {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            payload: &self.0[HEADER..length],
        };
        self.0 = self.0.get(align(length)..).unwrap_or(&[]);
        Some(Ok(message))
    }
}

fn malformed(operation: &str, what: Malformed) -> NetlinkError {
    NetlinkError::Malformed {
        operation: operation.to_owned(),
        what: what.0,
    }
}

fn refused<T>(operation: &str, error: KernelError) -> Result<T, NetlinkError> {
    Err(NetlinkError::Refused {
        operation: operation.to_owned(),
        error,
    })
}

/// The error of an `NLMSG_ERROR`; `None` for an ACK.
fn answer_of(payload: &[u8]) -> Option<KernelError> {
    let Ok(error) = ErrorBuffer::new_checked(payload) else {
        return Some(KernelError {
            errno: Errno::BADMSG.raw_os_error(),
            message: None,
        });
    };
    let code = error.code()?;
    // With NETLINK_CAP_ACK the request's header follows the code, and no more of the request.
    Some(KernelError {
        errno: -code.get(),
        message: explanation(payload.get(4 + HEADER..).unwrap_or(&[])),
    })
}

use rustix::io::Errno;

/// The error of an `NLMSG_DONE`; `None` when the dump is complete.
fn done_error(payload: &[u8]) -> Option<KernelError> {
    let done = DoneBuffer::new_checked(payload).ok()?;
    (done.code() < 0).then(|| KernelError {
        errno: -done.code(),
        message: explanation(done.extended_ack()),
    })
}

/// `NLMSGERR_ATTR_MSG` (linux/netlink.h).
const EXPLANATION: u16 = 1;

fn explanation(attributes: &[u8]) -> Option<String> {
    wire::attributes(attributes)
        .filter_map(Result::ok)
        .find(|(kind, _)| *kind == EXPLANATION)
        .map(|(_, text)| {
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned()
        })
}
