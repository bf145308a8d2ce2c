//! Netlink messages: a header, a body, and the messages that end an exchange.

use super::attribute::{attributes, find};
use super::error::WireError;

// `NLM_F_*` (linux/netlink.h).
/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;

/// Length of `struct nlmsghdr` (linux/netlink.h).
pub const HEADER_LEN: usize = 16;
/// Length of `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
pub const NFGEN_LEN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Appends a message. `body` writes the body in place and returns the message's type and flags.
pub fn write_message(
    bytes: &mut Vec<u8>,
    sequence: u32,
    body: impl FnOnce(&mut Vec<u8>) -> (u16, u16),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_LEN]);
    let (kind, flags) = body(bytes);
    #[allow(clippy::expect_used)]
    let length = u32::try_from(bytes.len() - start).expect("a message is far below 4 GiB");
    let header = &mut bytes[start..start + HEADER_LEN];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends one message, padded.
pub fn push_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    write_message(bytes, sequence, |bytes| {
        bytes.extend_from_slice(body);
        (kind, flags)
    });
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
    /// `nlmsg_pid`: in a notification, the port of the socket that made the change.
    pub port: u32,
    pub body: &'a [u8],
}

/// Splits a datagram (or a record of messages) into messages.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<Frame<'_>>, WireError> {
    const CUT: WireError = WireError::Malformed("a truncated message");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(CUT)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        found.push(Frame {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            port: u32::from_ne_bytes([head[12], head[13], head[14], head[15]]),
            body: bytes.get(HEADER_LEN..length).ok_or(CUT)?,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// The answer that ends a request.
pub(super) enum Final {
    Ok,
    Refused(WireError),
}

pub(super) fn final_of(frame: &Frame<'_>) -> Result<Option<Final>, WireError> {
    if frame.kind == NLMSG_OVERRUN {
        return Err(WireError::Malformed("a part of the answer was lost"));
    }
    if frame.kind != NLMSG_ERROR && frame.kind != NLMSG_DONE {
        return Ok(None);
    }
    let (code, rest) = match frame.body.split_first_chunk::<4>() {
        Some((code, rest)) => (i32::from_ne_bytes(*code), rest),
        // Some dumps end without a code: success.
        None if frame.kind == NLMSG_DONE => return Ok(Some(Final::Ok)),
        None => return Err(WireError::Malformed("an acknowledgement without a code")),
    };
    if code >= 0 {
        return Ok(Some(Final::Ok));
    }
    // An error carries the refused message: the header alone if capped, else the whole message.
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

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::*;

    #[test]
    fn truncated_messages_are_errors() {
        let mut bytes = Vec::new();
        push_message(&mut bytes, 1, 2, 3, &[4; 5]);
        assert_eq!(frames(&bytes).unwrap()[0].body, &[4; 5]);
        assert!(frames(&bytes[..6]).is_err());
        assert!(frames(&bytes[..18]).is_err());
    }

    #[test]
    fn a_refusal_contains_the_kernels_explanation() {
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
            port: 0,
            body: &body,
        };
        let Some(Final::Refused(refusal)) = final_of(&frame).unwrap() else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.errno(), Some(22));
        assert_eq!(refusal.to_string(), "Invalid argument (os error 22): bad");
    }

    #[test]
    fn a_dump_ending_with_an_error_is_a_refusal() {
        let body = (-2i32).to_ne_bytes();
        let frame = Frame {
            kind: NLMSG_DONE,
            flags: 2,
            sequence: 1,
            port: 0,
            body: &body,
        };
        assert!(matches!(
            final_of(&frame).unwrap(),
            Some(Final::Refused(WireError::Kernel { errno: 2, .. }))
        ));
    }
}
