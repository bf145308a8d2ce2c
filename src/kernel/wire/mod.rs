//! Netlink on the wire: attributes, messages, and a blocking socket with a receive timeout.
//!
//! Bulk requests and dumps are plain bytes here. The packet crates decode every attribute into an
//! allocated enum and drop unknown ones, while a comparison with the kernel's objects needs exactly
//! the unknown ones too.

mod attribute;
mod error;
mod message;
pub mod own;
mod socket;

pub use attribute::{
    Attribute, Attributes, attributes, each_attribute, find, number, put, put_address, put_text,
    put_u32, u16_at, u32_at,
};
pub use error::WireError;
pub use message::{
    ACK, APPEND, CREATE, DUMP, EXCL, Frame, HEADER_LEN, NFGEN_LEN, REPLACE, REQUEST, frames,
    push_message, write_message,
};
pub use socket::Wire;
