//! Opens our table to other programs as soon as a saved ruleset contains the table: the kernel would
//! refuse that file in the next restart of its service.

use std::sync::Arc;
use std::time::Instant;

use super::shared::{Shared, locked};
use crate::kernel::saved_rulesets::{Changes, with_our_table};

/// Follows the saved rulesets to the end of the process, in a thread of its own. Without
/// notifications, each pass looks at the files.
pub(super) fn follow(shared: Arc<Shared>) {
    let started = Changes::watch().and_then(|changes| {
        std::thread::Builder::new()
            .name("rulesets".to_owned())
            .spawn(move || {
                let error = follow_changes(&changes, &shared);
                tracing::warn!("saved rulesets are no longer watched: {error}");
            })
    });
    if let Err(error) = started {
        tracing::warn!("cannot watch saved rulesets: {error}");
    }
}

/// Returns the error that ends the notifications.
fn follow_changes(changes: &Changes, shared: &Shared) -> std::io::Error {
    let mut last = with_our_table();
    loop {
        if let Err(error) = changes.wait() {
            return error;
        }
        let found = with_our_table();
        if found != last && shared.saved_ruleset_changed(found.as_ref()) {
            let mut noticed = locked(&shared.noticed);
            noticed.event = Some(Instant::now());
            noticed.cause(|| "a saved ruleset changed".to_owned());
            drop(noticed);
            shared.wake.notify_one();
        }
        last = found;
    }
}
