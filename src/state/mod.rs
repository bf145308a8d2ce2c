//! Files that outlive a pass: the state directory and everything in it.
//!
//! | file | content | written by |
//! |---|---|---|
//! | `last-known-good` | the document in force, with its validators | [`store`] |
//! | `held` | a newer document that the guard holds | [`store`] |
//! | `confirmed.json` | the last time that a source confirmed the document in force | [`store`] |
//! | `guard.json` | holds, hold-downs and the anchor of their clock | `reconcile::persist` |
//! | `numbers.json` | tables, protocol, priorities and marks of the last passes | `reconcile` |
//! | `facts.json` | the metadata service's last answer for this machine | [`instance_facts`] |
//! | `journal.jsonl` | one line for each begin and end of a pass | `journal` |
//! | `lock` | the lock that keeps two passes apart | [`lock`] |

pub mod directory;
mod file;
pub mod instance_facts;
pub mod lock;
pub mod store;
