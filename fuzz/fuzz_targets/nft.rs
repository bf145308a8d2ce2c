//! Expressions of nf_tables: rules of our own table and of foreign ones.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use trailblazer::kernel::firewall::fuzzing::rule;
use trailblazer::kernel::wire::Wire;

/// `NETLINK_NETFILTER` (linux/netlink.h).
const NETLINK_NETFILTER: isize = 12;

thread_local! {
    static WIRE: RefCell<Option<Wire>> = RefCell::new(Wire::open(NETLINK_NETFILTER).ok());
}

fuzz_target!(|bytes: &[u8]| {
    WIRE.with_borrow_mut(|wire| rule(bytes, wire.as_mut()));
});
