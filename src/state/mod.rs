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
//! | `traffic.json` | counts of packets whose counters are gone | `agent` |
//! | `journal.jsonl` | one line for each begin and end of a pass | `journal` |
//! | `journal.jsonl.1` | the journal before the last rotation | `journal` |
//! | `lock` | the lock that keeps two passes apart | [`lock`] |
//!
//! The directory may belong to an unprivileged service user while root runs commands in it, so
//! every open, rename and removal goes through [`directory::StateDir`].

pub mod directory;
pub mod error;
mod file;
pub mod instance_facts;
pub mod lock;
pub mod store;

/// A file of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFile {
    LastKnownGood,
    Held,
    Confirmed,
    Guard,
    Numbers,
    Facts,
    Traffic,
    Journal,
    RotatedJournal,
    Lock,
}

impl StateFile {
    /// Every file, in the order of the table above.
    pub const ALL: [StateFile; 10] = [
        StateFile::LastKnownGood,
        StateFile::Held,
        StateFile::Confirmed,
        StateFile::Guard,
        StateFile::Numbers,
        StateFile::Facts,
        StateFile::Traffic,
        StateFile::Journal,
        StateFile::RotatedJournal,
        StateFile::Lock,
    ];

    /// The file's name in the directory.
    pub const fn name(self) -> &'static str {
        match self {
            StateFile::LastKnownGood => "last-known-good",
            StateFile::Held => "held",
            StateFile::Confirmed => "confirmed.json",
            StateFile::Guard => "guard.json",
            StateFile::Numbers => "numbers.json",
            StateFile::Facts => "facts.json",
            StateFile::Traffic => "traffic.json",
            StateFile::Journal => "journal.jsonl",
            StateFile::RotatedJournal => "journal.jsonl.1",
            StateFile::Lock => "lock",
        }
    }
}
