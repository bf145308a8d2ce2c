//! Doors to private decoders, for the targets in `fuzz/` and for benches/instructions alone.

use super::wire::{Frame, NFGEN_LEN, attributes, frames};
use super::{events, flows, link, nexthop, route, rule};

/// The body of a route message.
pub fn route(body: &[u8]) {
    let Ok(Some(decoded)) = route::decode(body) else {
        return;
    };
    let route = decoded.into_route();
    for write in [route::Write::Add, route::Write::Delete] {
        route::encode(write, &route, &mut Vec::new());
    }
}

/// Decodes the body of a route message; true if it is a route.
pub fn decode_route(body: &[u8]) -> bool {
    let decoded = route::decode(body);
    let route = decoded.ok().flatten().map(|decoded| decoded.into_route());
    std::hint::black_box(route).is_some()
}

/// The body of a rule message.
pub fn rule(body: &[u8]) {
    let _rule = rule::decode(body);
}

/// The body of a message about a link, an address or a nexthop object.
pub fn link(body: &[u8]) {
    let _link = link::decode_link(body);
    let _address = link::decode_address(body);
    let _object = nexthop::decode(body);
}

/// A datagram of notifications, and of answers by conntrack and the socket list.
pub fn datagram(bytes: &[u8]) {
    for frame in frames(bytes).unwrap_or_default() {
        events::fuzzing::notification(&frame);
        flow(frame.body);
    }
}

/// The body of a message of conntrack or of the socket list.
pub fn flow(body: &[u8]) {
    flows::fuzzing::answer(body);
}

/// Notifications whose bodies are `body`, one of each kind.
pub fn notifications(body: &[u8]) {
    let kinds = [16, 17, 20, 21, 24, 25, 32, 33, 80, 104, 105];
    let firewall = (0..=25).map(|kind| (10 << 8) | kind);
    for kind in kinds.into_iter().chain(firewall) {
        let frame = Frame {
            kind,
            flags: 0,
            sequence: 0,
            port: 0,
            body,
        };
        events::fuzzing::notification(&frame);
    }
    if let Some((_, list)) = body.split_at_checked(NFGEN_LEN) {
        let _list = attributes(list);
    }
}
