//! The result of changes to conntrack's entries.

use super::error::{FlowError, failed};
use super::request::FlowRequest;
use crate::kernel::wire::WireError;

/// The entry is gone.
pub(super) const ENOENT: i32 = 2;

/// The result of changing entries; all counts are flows.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) updated: u32,
    pub(super) inserted: u32,
    pub(super) gone: u32,
    /// Marked before.
    pub(super) marked: u32,
    /// The first error other than "gone" and "exists".
    pub(super) failure: Option<FlowError>,
}

impl Written {
    /// Adds the counts of a further change.
    pub(super) fn add(&mut self, more: Written) {
        self.updated += more.updated;
        self.inserted += more.inserted;
        self.gone += more.gone;
        self.marked += more.marked;
        if self.failure.is_none() {
            self.failure = more.failure;
        }
    }

    pub(super) fn count_updates(&mut self, answers: &[i32]) {
        for errno in answers {
            match *errno {
                0 => self.updated += 1,
                ENOENT => self.gone += 1,
                _ => {}
            }
        }
    }

    pub(super) fn fail(&mut self, request: Option<&FlowRequest>, error: WireError) {
        let operation = request.map_or_else(|| "change flows".to_owned(), FlowRequest::operation);
        self.failure.get_or_insert_with(|| failed(operation)(error));
    }
}
