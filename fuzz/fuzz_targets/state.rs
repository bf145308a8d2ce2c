//! Files of the state directory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trailblazer::guard::{Anchor, GuardState};

fuzz_target!(|bytes: &[u8]| {
    trailblazer::state::fuzzing::file(bytes);
    if let Ok(state) = serde_json::from_slice::<GuardState>(bytes) {
        let now = Anchor {
            boot_id: "fuzzed".to_owned(),
            boottime_s: 1,
            wall_s: 1_800_000_000,
        };
        let _rebased = state.rebase(&now);
        assert!(!state.differs_from(&state));
    }
});
