//! Brings the kernel in line with the settings and the document.
//!
//! | file | content |
//! |---|---|
//! | `pass.rs` | the pass: start reading here |
//! | `gather.rs`, `fetch_path.rs`, `instance.rs` | questions to remote services, before the pass |
//! | `stored.rs`, `documents.rs`, `memory.rs` | documents on disk, the judgement of the guard |
//! | `view.rs` | readings of the kernel, goals and plans |
//! | `attempt.rs`, `fights.rs`, `flows.rs`, `rollback.rs`, `restore.rs` | changes to the kernel |
//! | `judged.rs` | the kernel's answers, compared with the promise |
//! | `persist.rs`, `pass_journal.rs`, `report.rs`, `in_force.rs` | results |
//! | `examine.rs` | the first stages alone, for commands that explain |

mod attempt;
mod documents;
mod error;
mod examine;
mod fetch_path;
mod fights;
mod flows;
mod gather;
mod in_force;
pub mod instance;
mod judged;
mod memory;
mod options;
mod pass;
mod pass_journal;
mod persist;
pub mod report;
mod restore;
mod rollback;
mod sources;
mod stored;
mod view;

use std::borrow::BorrowMut;
use std::time::Duration;

use crate::apply::Interposer;
use crate::config::{Config, Role};
use crate::kernel::privilege::has_net_admin;
use crate::kernel::{Kernel, ObserveError};

pub use error::PassError;
pub use examine::{Examined, examine};
pub use gather::{Gathered, gather};
pub use in_force::InForce;
pub use memory::Memory;
pub use options::{Asking, Cause, Mode, Options, Watched};
pub use report::{FetchOutcome, Outcome, Report};
pub use view::{BackendChoice, Firewalls, View};

/// How long a pass waits for the lock.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The settings and options of one pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    config: &'a Config,
    role: Role,
    options: &'a Options,
}

impl Job<'_> {
    /// The role whose facts the metadata service is asked for. A machine image is built on another
    /// machine, so facts about a NAT instance would be wrong on the one that boots the image.
    fn role_of_facts(self) -> Role {
        if self.options.mode.documents_only() {
            Role::Host
        } else {
            self.role
        }
    }

    /// Fails without CAP_NET_ADMIN, unless the kernel is not changed.
    fn check_privilege(self) -> Result<(), PassError> {
        if self.options.mode == Mode::Apply && has_net_admin() == Some(false) {
            return Err(PassError::NoPrivilege);
        }
        Ok(())
    }
}

/// Runs a pass on gathered answers. The pass waits for the lock only, and calls `kernel` once the
/// lock is held. Errors are in the report.
pub fn pass<K: BorrowMut<Kernel>>(
    gathered: Gathered,
    memory: Option<&mut Memory>,
    config: &Config,
    role: Role,
    options: &Options,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let job = Job {
        config,
        role,
        options,
    };
    pass::run(job, gathered, memory, kernel, interposer)
}

/// One pass of a command: gathers the answers of remote services without the lock, then runs the
/// pass. Errors are in the report.
pub async fn one_shot<K: BorrowMut<Kernel>>(
    config: &Config,
    role: Role,
    options: &Options,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let job = Job {
        config,
        role,
        options,
    };
    // Before anything else: no server is asked in vain.
    if let Err(error) = job.check_privilege() {
        return Report::failed(role, options.mode, &error);
    }
    let mut kernel = kernel();
    let gathered = match &mut kernel {
        Ok(kernel) => gather::for_this_host(job, kernel.borrow_mut()).await,
        // The pass reports the error.
        Err(_) => Ok(Gathered::default()),
    };
    let gathered = match gathered {
        Ok(gathered) => gathered,
        Err(error) => return Report::failed(role, options.mode, &error.into()),
    };
    let took = gathered.took;
    let mut report = pass::run(job, gathered, None, || kernel, interposer);
    report.add_source_time(took);
    report
}
