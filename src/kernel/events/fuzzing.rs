//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::decode;
use crate::kernel::wire::Frame;

/// One notification, of either protocol.
pub fn notification(frame: &Frame<'_>) {
    let _route = decode::route_event(frame);
    let _firewall = decode::firewall_event(frame);
    let _control = decode::is_control(frame);
}
