//! Doors to private decoders, for the targets in `fuzz/` alone.

use super::error::ErrorAnswer;
use super::{decode, xml};

/// The body of an answer.
pub fn answer(bytes: &[u8]) {
    let Ok(root) = xml::parse(bytes) else {
        return;
    };
    if let Some(refusal) = ErrorAnswer::read(&root) {
        let _shown = refusal.into_error("fuzz", Some(0)).to_string();
    }
    let action = root.name.strip_suffix("Response").unwrap_or_default();
    let _lists = decode::page(&root, action, "prefixListSet", decode::prefix_list);
    let _entries = decode::page(&root, action, "entrySet", decode::entry);
    let _tables = decode::page(&root, action, "routeTableSet", decode::route_table);
    let set = "prefixListAssociationSet";
    let _associations = decode::page(&root, action, set, decode::association);
    let _done = decode::performed(&root, action);
}
