//! Brings the kernel in line with the settings and the document.
//!
//! | file | content |
//! |---|---|
//! | `pass.rs` | the pass: start reading here |
//! | `gather.rs`, `fetch_path.rs`, `instance.rs`, `progress.rs` | questions to remote services, before the pass |
//! | `stored.rs`, `documents.rs`, `ground.rs`, `memory.rs` | documents on disk, the judgement of the guard |
//! | `elsewhere.rs` | the documents for a role without a kernel |
//! | `observe.rs`, `drained.rs`, `diverted.rs`, `view.rs` | readings of the kernel, goals and plans |
//! | `attempt.rs`, `fights.rs`, `flows.rs`, `present_paths.rs`, `rollback.rs`, `egress.rs` | changes to the kernel |
//! | `shut.rs` | the egress before the first pass |
//! | `refusals.rs` | firewall rules that the kernel refuses |
//! | `judged.rs`, `dropped.rs`, `drop_readings.rs` | the kernel's answers, compared with the promise |
//! | `state_dir.rs`, `persist.rs`, `pass_journal.rs`, `report.rs`, `in_force.rs` | results |
//! | `examine.rs` | the first stages alone, for commands that explain |

mod attempt;
mod diverted;
mod documents;
mod drained;
mod drop_readings;
mod dropped;
mod egress;
mod elsewhere;
mod error;
mod examine;
mod fetch_path;
mod fights;
mod flows;
mod gather;
mod ground;
mod in_force;
pub mod instance;
mod judged;
mod memory;
mod observe;
mod options;
mod pass;
mod pass_journal;
mod persist;
mod present_paths;
mod progress;
mod refusals;
pub mod report;
mod rollback;
mod shut;
mod sources;
mod state_dir;
mod stored;
mod view;

use std::borrow::BorrowMut;
use std::time::Duration;

use crate::apply::Interposer;
use crate::config::{Config, Role};
use crate::kernel::privilege::has_net_admin;
use crate::kernel::{Kernel, ObserveError};

pub use elsewhere::{Elsewhere, Place, judge_elsewhere};
pub use error::PassError;
pub use examine::{Examined, examine};
pub use gather::{Gathered, gather};
pub use in_force::InForce;
pub use memory::Memory;
pub use options::{Asking, Cause, Mode, Options, Watched};
pub use progress::{PROGRESS, remarked};
pub use report::{FetchOutcome, Outcome, Report, state_fault};
pub use shut::shut;
pub use view::{BackendChoice, Firewalls, View};

/// How long a pass waits for another pass: longer than a pass over all of AWS's prefixes, shorter
/// than an operator's patience.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long a pass waits for the file of the lock while no other pass changes this kernel: longer
/// than the writes of a pass in another network namespace with the same state dir.
pub const FILE_WAIT: Duration = Duration::from_secs(2);

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

/// How long a command waits for remote services before a pass without them. A quick source brings
/// the document in time, so that no storage flow takes the egress path for a moment.
const GRACE: Duration = Duration::from_millis(1000);

/// One pass of a command: gathers the answers of remote services without the lock, then runs the
/// pass. If the services are slow, a pass on the state dir alone comes first: a silent server must
/// not keep the egress open. Errors are in the report.
pub async fn one_shot<K: BorrowMut<Kernel>>(
    config: &Config,
    role: Role,
    options: &Options,
    kernel: impl FnOnce() -> Result<K, ObserveError>,
    mut interposer: Option<&mut dyn Interposer>,
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
    let mut kernel = match kernel() {
        Ok(kernel) => kernel,
        Err(error) => return Report::failed(role, options.mode, &error.into()),
    };
    let host = match gather::Surroundings::read(job, kernel.borrow_mut()) {
        Ok(host) => host,
        Err(error) => return Report::failed(role, options.mode, &error.into()),
    };
    let gathering = gather::for_command(job, &host);
    let mut gathering = std::pin::pin!(gathering);
    let mut early = None;
    let gathered = match tokio::time::timeout(GRACE, &mut gathering).await {
        Ok(gathered) => gathered,
        Err(_) if options.mode == Mode::Apply => {
            let interposer = interposer.as_mut().map(|it| &mut **it as _);
            early = Some(on_disk_alone(job, kernel.borrow_mut(), interposer));
            gathering.await
        }
        Err(_) => gathering.await,
    };
    let took = gathered.took;
    let mut report = pass::run(job, gathered, None, || Ok(kernel), interposer);
    report.add_source_time(took);
    if let Some(early) = early {
        report.follow(early);
    }
    report
}

/// A pass on the state dir alone.
fn on_disk_alone(
    job: Job<'_>,
    kernel: &mut Kernel,
    interposer: Option<&mut dyn Interposer>,
) -> Report {
    let options = Options {
        asking: Asking::Nobody,
        accept: None,
        accept_region: None,
        ..job.options.clone()
    };
    let job = Job {
        options: &options,
        ..job
    };
    pass::run(job, Gathered::default(), None, || Ok(kernel), interposer)
}
