//! NETLINK_ROUTE: complete dumps, batched writes, single requests.
//!
//! In a batch, only the last message requests an ACK. The kernel reports every error anyway:
//! silence means success, and the last ACK ends the batch. With an ACK for each message, 256
//! messages overrun the socket.

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use thiserror::Error;

use super::errno::KernelError;
use super::wire::{ACK, DUMP, Frame, REQUEST, Wire, WireError, write_message};

/// Attempts at a dump that changes interrupt; Calico's Felix tries as often.
const DUMP_ATTEMPTS: usize = 5;
/// Messages per batch. If the kernel refuses all of them, the answers (about 800 bytes of socket
/// memory each) still fit the default receive buffer of 212,992 bytes, which the kernel doubles.
const BATCH_MESSAGES: usize = 250;
/// Bytes per batch: 32 KiB were as fast as 1 MiB when measured.
const BATCH_BYTES: usize = 32 << 10;

/// A failed exchange with the kernel.
#[derive(Debug, Error)]
pub enum NetlinkError {
    #[error("{operation}: {source}")]
    Wire {
        operation: String,
        #[source]
        source: WireError,
    },
    #[error(
        "{operation}: the kernel dropped answers (receive buffer overrun), so that the outcome is unknown; try again"
    )]
    Overrun { operation: String },
    #[error("{operation}: {error}{}", .error.advice())]
    Refused {
        operation: String,
        error: KernelError,
    },
    #[error("{operation}: changed while being read, {DUMP_ATTEMPTS} times in a row; try again")]
    Interrupted { operation: String },
}

impl NetlinkError {
    fn new(operation: &str, error: WireError) -> Self {
        let operation = operation.to_owned();
        match error {
            WireError::Kernel { errno, text, .. } => NetlinkError::Refused {
                operation,
                error: KernelError::new(errno, text),
            },
            WireError::Interrupted => NetlinkError::Interrupted { operation },
            WireError::Io(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                NetlinkError::Overrun { operation }
            }
            source => NetlinkError::Wire { operation, source },
        }
    }

    /// The errno, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { error, .. } => Some(error.errno),
            NetlinkError::Wire { source, .. } => source.errno(),
            NetlinkError::Overrun { .. } | NetlinkError::Interrupted { .. } => None,
        }
    }
}

/// An open socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetlinkSocket {
    wire: Wire,
}

/// A refused message of a batch: its position and the kernel's answer.
pub type Refusal = (usize, KernelError);

impl NetlinkSocket {
    /// Opens a socket with strict checking of requests.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_protocol(NETLINK_ROUTE, "open a route socket")
    }

    /// The same for another protocol of netlink.
    pub fn open_protocol(protocol: isize, operation: &str) -> Result<Self, NetlinkError> {
        let wire = Wire::open(protocol)
            .and_then(Wire::strict)
            .map_err(|error| NetlinkError::new(operation, error.into()))?;
        Ok(NetlinkSocket { wire })
    }

    /// Runs a dump: `request` writes the fixed header and attributes, `decode` turns one message
    /// into at most one value. Repeats an interrupted dump; the result is complete or an error.
    pub fn dump<T>(
        &mut self,
        operation: &str,
        message_type: u16,
        request: impl Fn(&mut Vec<u8>),
        mut decode: impl FnMut(&Frame<'_>) -> Result<Option<T>, WireError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut body = Vec::new();
        request(&mut body);
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let outcome = self.wire.ask(message_type, DUMP, &body, |frame| {
                found.extend(decode(&frame)?);
                Ok(())
            });
            match outcome {
                Ok(()) => return Ok(found),
                Err(WireError::Interrupted) => {}
                Err(error) => return Err(NetlinkError::new(operation, error)),
            }
        }
        Err(NetlinkError::Interrupted {
            operation: operation.to_owned(),
        })
    }

    /// Sends one request and returns the decoded answer or the kernel's refusal. A refusal may be
    /// an answer too: for a look-up ending in `unreachable`, the kernel says EHOSTUNREACH.
    pub fn ask<T>(
        &mut self,
        operation: &str,
        message_type: u16,
        request: impl Fn(&mut Vec<u8>),
        mut decode: impl FnMut(&Frame<'_>) -> Result<Option<T>, WireError>,
    ) -> Result<Result<T, KernelError>, NetlinkError> {
        let mut body = Vec::new();
        request(&mut body);
        let mut found = None;
        let outcome = self.wire.ask(message_type, 0, &body, |frame| {
            found = decode(&frame)?.or(found.take());
            Ok(())
        });
        match (outcome, found) {
            (Ok(()), Some(found)) => Ok(Ok(found)),
            (Ok(()), None) => Err(NetlinkError::new(
                operation,
                WireError::Malformed("an acknowledgement without an answer"),
            )),
            (Err(WireError::Kernel { errno, text, .. }), _) => {
                Ok(Err(KernelError::new(errno, text)))
            }
            (Err(error), _) => Err(NetlinkError::new(operation, error)),
        }
    }

    /// Sends `count` messages in batches and returns the refused ones. `message` writes the body
    /// of the message at a position and returns its type and flags. The kernel carries out later
    /// messages despite an earlier refusal: one call must not hold messages that depend on each
    /// other.
    pub fn batch(
        &mut self,
        operation: &str,
        count: usize,
        mut message: impl FnMut(usize, &mut Vec<u8>) -> (u16, u16),
    ) -> Result<Vec<Refusal>, NetlinkError> {
        let failed = |error| NetlinkError::new(operation, error);
        let mut refusals = Vec::new();
        let mut bytes = Vec::with_capacity(BATCH_BYTES + 256);
        let mut next = 0;
        while next < count {
            bytes.clear();
            let first = next;
            let first_sequence = self.wire.next_sequence();
            let mut sequence = first_sequence;
            loop {
                let fits = next + 1 - first < BATCH_MESSAGES && bytes.len() < BATCH_BYTES;
                let last = next + 1 == count || !fits;
                write_message(&mut bytes, sequence, |bytes| {
                    let (kind, flags) = message(next, bytes);
                    (kind, REQUEST | flags | if last { ACK } else { 0 })
                });
                next += 1;
                if last {
                    break;
                }
                sequence = self.wire.next_sequence();
            }
            self.wire.send(&bytes).map_err(failed)?;
            for refusal in self.wire.settle(sequence, None).map_err(failed)? {
                let WireError::Kernel {
                    errno,
                    text,
                    sequence,
                } = refusal
                else {
                    continue;
                };
                let place = sequence.wrapping_sub(first_sequence) as usize;
                // A late answer to an earlier batch that timed out lies outside the batch.
                if first + place < next {
                    refusals.push((first + place, KernelError::new(errno, text)));
                }
            }
        }
        Ok(refusals)
    }
}
