//! Clients of the control socket.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use trailblazer::status::fuzzing::control;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().build().expect("a runtime needs no privilege"),
    );
}

fuzz_target!(|bytes: &[u8]| {
    let answer = RUNTIME.with_borrow_mut(|runtime| runtime.block_on(control(bytes)));
    assert!(answer.is_empty() || answer.ends_with(b"\n"));
});
