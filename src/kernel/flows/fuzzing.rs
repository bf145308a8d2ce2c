//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::{entry, request, sockets};
use crate::types::Mark;

/// The body of a message of conntrack or of the socket list.
pub fn answer(body: &[u8]) {
    if let Ok(flow) = entry::parse(body) {
        let _mark = request::mark(&flow, Mark { value: 1, mask: 1 });
        let _deletion = request::delete(&flow);
    }
    let _socket = sockets::parse(body);
}
