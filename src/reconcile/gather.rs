//! Questions to remote services, asked before the pass. The pass holds the state lock, and a slow
//! server must not delay other holders.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::instance::{self, Metadata};
use super::stored::ReadAhead;
use super::{Asking, Job, Options, fetch_path};
use crate::config::{Config, Role};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::{Kernel, link};
use crate::notes::Notes;
use crate::source::child::Asker;
use crate::source::{Fetched, SourceError, Validators};
use crate::state::store::Store;

/// The answer of the source.
#[derive(Debug)]
pub(super) struct SourceAnswer {
    /// The validators of the request. "Not modified" refers to the document with the same ones.
    pub validators: Option<Validators>,
    pub fetched: Result<Fetched, SourceError>,
}

/// Answers for one pass. The default has none: the pass uses the state dir alone.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(super) metadata: Metadata,
    pub(super) source: Option<SourceAnswer>,
    /// Documents read for the sake of validators. The pass need not read the files again.
    pub(super) read_ahead: ReadAhead,
    pub(super) notes: Notes,
    pub(super) took: Duration,
}

/// Asks the metadata service and, unless `options` exclude it, the source. Timeouts bound both
/// questions. Writes nothing and takes no lock. `own` are the addresses of the host,
/// with their networks.
pub async fn gather(
    config: &Config,
    role: Role,
    options: &Options,
    asker: &Asker,
    own: &[IpNet],
) -> Gathered {
    let job = Job {
        config,
        role,
        options,
    };
    let started = Instant::now();
    let mut gathered = Gathered {
        metadata: instance::ask(job, own).await,
        ..Gathered::default()
    };
    if options.asking != Asking::Nobody {
        if options.asking == Asking::Source {
            gathered.read_ahead = ReadAhead::read(&Store::open(&config.source.state_dir));
        }
        // An unreadable document has no validators here, so the source sends the whole document.
        let validators = gathered.read_ahead.validators();
        let (fetched, mut notes) =
            fetch_path::fetch_document(config, role, asker, validators.as_ref()).await;
        gathered.notes.append(&mut notes);
        gathered.source = Some(SourceAnswer {
            validators,
            fetched,
        });
    }
    gathered.took = started.elapsed();
    gathered
}

/// Gathers in this process, for the host of this kernel.
pub(super) async fn for_this_host(
    job: Job<'_>,
    kernel: &mut Kernel,
) -> Result<Gathered, NetlinkError> {
    let addresses = link::dump_addresses(kernel.socket())?;
    let own: Vec<IpNet> = addresses.iter().map(|own| own.net).collect();
    Ok(gather(job.config, job.role, job.options, &Asker::This, &own).await)
}
