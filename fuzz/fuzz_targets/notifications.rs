//! Datagrams of netlink, and the body of a notification of each kind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trailblazer::kernel::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    fuzzing::datagram(bytes);
    fuzzing::notifications(bytes);
});
