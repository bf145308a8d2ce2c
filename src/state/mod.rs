//! The state directory and its files, which outlive a pass.
//!
//! | file | content | written by |
//! |---|---|---|
//! | `last-known-good` | the document in force, with validators | [`store`] |
//! | `held` | a newer document, held by the guard | [`store`] |
//! | `confirmed.json` | the last confirmation of the document in force by a source | [`store`] |
//! | `silences.json` | sources that asked for no request (`Retry-After`) | `reconcile` |
//! | `guard.json` | hold, hold-downs and the anchor of the guard's clock | `reconcile::persist` |
//! | `numbers.json` | tables, protocol, priorities and marks of the last passes | `reconcile` |
//! | `shares.json` | the egress address of each slot of source hosts | `reconcile` |
//! | `facts.json` | the metadata service's last answer for this machine | [`instance_facts`] |
//! | `in_force.json` | the start of the unbroken time in force | `agent` |
//! | `drained.json` | the gateways without new flows on an operator's word | `agent` |
//! | `diverted.json` | the families whose bypass path is down by the probes | `agent` |
//! | `traffic.json` | the counts of lost counters | `agent` |
//! | `dropped.json` | the packets dropped after all translation, as a one-shot pass has read them | `reconcile` |
//! | `vpc.json` | the prefix lists as the last pass of the vpc role left them | `vpc` |
//! | `vpc-routes.json` | the routes of the vpc role with `mode = "routes"` | `vpc` |
//! | `journal.jsonl` | one line for each begin and end of a pass | `journal` |
//! | `journal.jsonl.1` | the journal before the last rotation | `journal` |
//! | `lock` | the mutual exclusion of passes | [`lock`] |
//! | `agent.lock` | the mutual exclusion of agents | [`agent_lock`] |
//!
//! The directory may belong to an unprivileged service user while root runs commands there, so
//! every open, rename and removal goes through [`directory::StateDir`].

pub mod agent_lock;
pub mod directory;
pub mod diverted;
pub mod drained;
pub mod error;
mod exclusion;
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod instance_facts;
pub mod lock;
pub mod patience;
pub mod store;

/// A file of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFile {
    LastKnownGood,
    Held,
    Confirmed,
    Silences,
    Guard,
    Numbers,
    Shares,
    Facts,
    InForce,
    Drained,
    Diverted,
    Traffic,
    Dropped,
    Vpc,
    VpcRoutes,
    Journal,
    RotatedJournal,
    Lock,
    AgentLock,
}

impl StateFile {
    /// Every file, in the order of the table above.
    pub const ALL: [StateFile; 19] = [
        StateFile::LastKnownGood,
        StateFile::Held,
        StateFile::Confirmed,
        StateFile::Silences,
        StateFile::Guard,
        StateFile::Numbers,
        StateFile::Shares,
        StateFile::Facts,
        StateFile::InForce,
        StateFile::Drained,
        StateFile::Diverted,
        StateFile::Traffic,
        StateFile::Dropped,
        StateFile::Vpc,
        StateFile::VpcRoutes,
        StateFile::Journal,
        StateFile::RotatedJournal,
        StateFile::Lock,
        StateFile::AgentLock,
    ];

    /// The file's name in the directory.
    pub const fn name(self) -> &'static str {
        match self {
            StateFile::LastKnownGood => "last-known-good",
            StateFile::Held => "held",
            StateFile::Confirmed => "confirmed.json",
            StateFile::Silences => "silences.json",
            StateFile::Guard => "guard.json",
            StateFile::Numbers => "numbers.json",
            StateFile::Shares => "shares.json",
            StateFile::Facts => "facts.json",
            StateFile::InForce => "in_force.json",
            StateFile::Drained => "drained.json",
            StateFile::Diverted => "diverted.json",
            StateFile::Traffic => "traffic.json",
            StateFile::Dropped => "dropped.json",
            StateFile::Vpc => "vpc.json",
            StateFile::VpcRoutes => "vpc-routes.json",
            StateFile::Journal => "journal.jsonl",
            StateFile::RotatedJournal => "journal.jsonl.1",
            StateFile::Lock => "lock",
            StateFile::AgentLock => "agent.lock",
        }
    }
}
