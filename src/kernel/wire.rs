//! Netlink for the families that `rtnetlink` doesn't speak (netfilter, sock_diag): attributes,
//! messages, and a blocking socket that never waits for ever.
//!
//! Bulk requests and dumps go through here as plain bytes: the packet crates decode every
//! attribute into allocated enums and drop what they don't know, while comparing what lies in the
//! kernel needs exactly the unknown ones too.

use std::io;
use std::time::Duration;

use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use thiserror::Error;

/// `NLM_F_REQUEST` (linux/netlink.h).
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK` (linux/netlink.h).
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP` (linux/netlink.h).
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL` (linux/netlink.h).
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE` (linux/netlink.h).
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND` (linux/netlink.h).
pub const APPEND: u16 = 0x800;

/// Length of `struct nlmsghdr` (linux/netlink.h).
pub const HEADER_LEN: usize = 16;
/// Length of `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
pub const NFGEN_LEN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// How long the kernel may take for one answer. It answers within milliseconds; a transaction of
/// somebody else that holds the nf_tables lock takes seconds at worst.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Socket buffers in bytes: one transaction is one datagram, and 10,000 IPv6 intervals take
/// 0.7 MB.
const BUFFER: usize = 8 << 20;
/// The kernel never puts more than 32 KiB into one datagram of a dump (net/netlink/af_netlink.c).
const RECEIVE: usize = 64 << 10;

/// Why an exchange failed.
#[derive(Debug, Error)]
pub enum WireError {
    /// The socket itself failed.
    #[error("{}", errno_words(.0))]
    Io(#[from] io::Error),
    /// The kernel refused a message.
    #[error("{}", refusal_words(*.errno, .text))]
    Kernel {
        /// The errno, positive.
        errno: i32,
        /// The kernel's extended-ack text, empty when it gave none.
        text: String,
        /// The sequence number of the message that it refused.
        sequence: u32,
    },
    /// What was dumped changed meanwhile (`NLM_F_DUMP_INTR`): the answer is no consistent whole.
    #[error("what was read changed while it was read; try again")]
    Interrupted,
    /// The kernel's answer doesn't hold together.
    #[error("malformed answer of the kernel: {0}")]
    Malformed(&'static str),
}

impl WireError {
    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            WireError::Io(error) => error.raw_os_error(),
            WireError::Kernel { errno, .. } => Some(*errno),
            WireError::Interrupted | WireError::Malformed(_) => None,
        }
    }
}

fn errno_words(error: &io::Error) -> String {
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return format!(
            "the kernel gave no answer within {} s",
            ANSWER_WITHIN.as_secs()
        );
    }
    error.to_string()
}

fn refusal_words(errno: i32, text: &str) -> String {
    let words = io::Error::from_raw_os_error(errno).to_string();
    if text.is_empty() {
        words
    } else {
        format!("{words}: {text}")
    }
}

/// Builds a list of attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// With a payload over the 65,531 bytes that the 16-bit length can say; callers split
    /// what has no limit of its own.
    pub fn put(mut self, kind: u16, payload: &[u8]) -> Self {
        #[allow(clippy::expect_used)]
        let length = u16::try_from(payload.len() + 4)
            .expect("attribute payloads are bounded by their callers");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a 32-bit number in network order, as netfilter wants them.
    pub fn put_be32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a string with its final NUL.
    pub fn put_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds a list inside the list.
    pub fn nest(self, kind: u16, inner: Attributes) -> Self {
        self.put(kind | NLA_F_NESTED, &inner.0)
    }

    /// Adds attributes that are encoded already.
    pub fn raw(mut self, encoded: &[u8]) -> Self {
        self.0.extend_from_slice(encoded);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The encoded list.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The encoded length so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One attribute of a received list.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// Its type without the flag bits.
    pub kind: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Attribute<'_> {
    /// The payload as a 32-bit number in network order.
    pub fn be32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.try_into().ok()?))
    }

    /// The payload as text up to the first NUL.
    pub fn text(&self) -> String {
        let end = self.payload.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&self.payload[..end.unwrap_or(self.payload.len())]).into_owned()
    }
}

/// Splits a list of attributes. A list that doesn't hold together is an error, never a short list.
pub fn attributes(mut bytes: &[u8]) -> Result<Vec<Attribute<'_>>, WireError> {
    let mut found = Vec::new();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = bytes
            .get(4..length)
            .ok_or(WireError::Malformed("an attribute longer than its message"))?;
        found.push(Attribute {
            kind: u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK,
            payload,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if bytes.is_empty() {
        Ok(found)
    } else {
        Err(WireError::Malformed("a list of attributes that is cut off"))
    }
}

/// The attribute of a type, if it is there.
pub fn find<'a>(list: &[Attribute<'a>], kind: u16) -> Option<Attribute<'a>> {
    list.iter()
        .copied()
        .find(|attribute| attribute.kind == kind)
}

/// Appends one message, padded.
pub fn push_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    #[allow(clippy::expect_used)]
    let length = u32::try_from(HEADER_LEN + body.len()).expect("a message is far below 4 GiB");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message out of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Splits a datagram (or a record of messages) into messages.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<Frame<'_>>, WireError> {
    const CUT: WireError = WireError::Malformed("a message that is cut off");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(CUT)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        found.push(Frame {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            body: bytes.get(HEADER_LEN..length).ok_or(CUT)?,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// An answer that ends a request.
enum Final {
    Ok,
    Refused(WireError),
}

fn final_of(frame: &Frame<'_>) -> Result<Option<Final>, WireError> {
    if frame.kind == NLMSG_OVERRUN {
        return Err(WireError::Malformed("it lost a part of the answer"));
    }
    if frame.kind != NLMSG_ERROR && frame.kind != NLMSG_DONE {
        return Ok(None);
    }
    let (code, rest) = match frame.body.split_first_chunk::<4>() {
        Some((code, rest)) => (i32::from_ne_bytes(*code), rest),
        // Some dumps end without a code, which means success.
        None if frame.kind == NLMSG_DONE => return Ok(Some(Final::Ok)),
        None => return Err(WireError::Malformed("an acknowledgement without a code")),
    };
    if code >= 0 {
        return Ok(Some(Final::Ok));
    }
    // An error carries the header of the refused message, and all of it unless capped.
    let tail = if frame.kind == NLMSG_DONE {
        rest
    } else if frame.flags & NLM_F_CAPPED != 0 {
        rest.get(HEADER_LEN..).unwrap_or_default()
    } else {
        let refused = rest
            .first_chunk::<4>()
            .map_or(0, |l| u32::from_ne_bytes(*l)) as usize;
        rest.get(refused.next_multiple_of(4)..).unwrap_or_default()
    };
    let text = if frame.flags & NLM_F_ACK_TLVS != 0 {
        find(&attributes(tail).unwrap_or_default(), NLMSGERR_ATTR_MSG)
            .map(|message| message.text())
            .unwrap_or_default()
    } else {
        String::new()
    };
    Ok(Some(Final::Refused(WireError::Kernel {
        errno: -code,
        text,
        sequence: frame.sequence,
    })))
}

/// A blocking netlink socket.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens a socket of this netlink protocol.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel doesn't have the protocol.
    pub fn open(protocol: isize) -> io::Result<Wire> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, side, Some(ANSWER_WITHIN))?;
        }
        // Beyond the host's limit only with CAP_NET_ADMIN in the initial user namespace: in a
        // container the plain call takes what the limit allows.
        if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, BUFFER)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        Ok(Wire {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        })
    }

    /// A fresh sequence number.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one datagram of whole messages.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Asks one question and hands each message of the answer to `each`.
    ///
    /// With [`DUMP`] in `flags` an answer that was interrupted by a change is
    /// [`WireError::Interrupted`], and a dump that ends with an error is that error: neither is
    /// ever a short list.
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

    /// Reads answers until the message `last` is acknowledged or refused; returns the refusals in
    /// the order in which the kernel names them. The caller has asked for an acknowledgement of
    /// `last` and of no other message. A refusal of `whole` (the head of a batch) ends it too.
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
            let (_, sender) = self.socket.recv_from(&mut self.buffer, 0)?;
            // Any process may send to our port: only the kernel's word counts.
            if sender.port_number() == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_went_in() {
        let bytes = Attributes::new()
            .put_be32(1, 7)
            .put_text(2, "abc")
            .nest(3, Attributes::new().put(9, &[1]))
            .into_bytes();
        let list = attributes(&bytes).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].be32(), Some(7));
        assert_eq!(list[1].text(), "abc");
        assert_eq!(attributes(list[2].payload).unwrap()[0].payload, &[1]);
    }

    #[test]
    fn a_list_that_is_cut_off_is_an_error_and_not_a_shorter_list() {
        let bytes = Attributes::new().put_be32(1, 7).put_be32(2, 8).into_bytes();
        assert!(attributes(&bytes[..14]).is_err());
        assert!(attributes(&bytes[..10]).is_err());
        assert!(frames(&bytes[..6]).is_err());
    }

    #[test]
    fn the_kernels_own_words_are_part_of_a_refusal() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_LEN]);
        body.extend(
            Attributes::new()
                .put_text(NLMSGERR_ATTR_MSG, "bad")
                .into_bytes(),
        );
        let frame = Frame {
            kind: NLMSG_ERROR,
            flags: NLM_F_CAPPED | NLM_F_ACK_TLVS,
            sequence: 3,
            body: &body,
        };
        let Some(Final::Refused(refusal)) = final_of(&frame).unwrap() else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.errno(), Some(22));
        assert_eq!(refusal.to_string(), "Invalid argument (os error 22): bad");
    }

    #[test]
    fn a_dump_that_ends_with_an_error_is_no_empty_answer() {
        let body = (-2i32).to_ne_bytes();
        let frame = Frame {
            kind: NLMSG_DONE,
            flags: 2,
            sequence: 1,
            body: &body,
        };
        assert!(matches!(
            final_of(&frame).unwrap(),
            Some(Final::Refused(WireError::Kernel { errno: 2, .. }))
        ));
    }
}
