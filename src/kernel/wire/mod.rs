//! Netlink on the wire: attributes, messages, and a blocking socket that never waits for ever.
//!
//! Bulk requests and dumps go through here as plain bytes: the packet crates decode every
//! attribute into allocated enums and drop what they don't know, while comparing what lies in the
//! kernel needs exactly the unknown ones too.

use std::io;
use std::time::Duration;

use thiserror::Error;

mod attribute;
mod message;
pub mod own;
mod socket;

pub use attribute::{
    Attribute, Attributes, attributes, each_attribute, find, put, put_address, put_text, put_u32,
    u16_at, u32_at,
};
pub use message::{Frame, frames, push_message, write_message};
pub use socket::Wire;

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
/// `NLM_F_REPLACE` (linux/netlink.h).
pub const REPLACE: u16 = 0x100;
/// `NLM_F_APPEND` (linux/netlink.h).
pub const APPEND: u16 = 0x800;

/// Length of `struct nlmsghdr` (linux/netlink.h).
pub const HEADER_LEN: usize = 16;
/// Length of `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
pub const NFGEN_LEN: usize = 4;

/// How long the kernel may take for one answer. It answers within milliseconds; a transaction of
/// somebody else that holds the nf_tables lock takes seconds at worst.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
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
