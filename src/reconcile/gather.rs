//! Questions to remote services, asked before the pass. The pass holds the state lock, and a slow
//! server must not delay other holders.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::instance::{self, Metadata};
use super::sources::{SilencesSeen, SourceAnswer, Sources};
use super::stored::ReadAhead;
use super::{Asking, Job, Options};
use crate::config::{Config, Role};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::{Kernel, link};
use crate::notes::Notes;
use crate::source::child::Asker;
use crate::state::StateFile;
use crate::state::patience::in_time;
use crate::state::store::Store;

/// Answers for one pass. The default has none: the pass uses the state dir alone.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(super) metadata: Metadata,
    pub(super) source: Option<SourceAnswer>,
    /// Documents read for the sake of validators. The pass need not read the files again.
    pub(super) read_ahead: ReadAhead,
    pub(super) silences: SilencesSeen,
    pub(super) notes: Notes,
    pub(super) took: Duration,
}

impl Gathered {
    pub(super) fn is_metadata_left_to_agent(&self) -> bool {
        matches!(self.metadata, Metadata::LeftToAgent)
    }
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
    let metadata = instance::ask(job, own).await;
    with_sources(job, asker, metadata, started).await
}

/// Asks for a command. A running agent's answers serve in place of the metadata service.
pub(super) async fn for_command(job: Job<'_>, own: &[IpNet]) -> Gathered {
    let started = Instant::now();
    let metadata = instance::ask_beside_agent(job, own).await;
    with_sources(job, &Asker::This, metadata, started).await
}

async fn with_sources(
    job: Job<'_>,
    asker: &Asker,
    metadata: Metadata,
    started: Instant,
) -> Gathered {
    let Job {
        config, options, ..
    } = job;
    let mut gathered = Gathered {
        metadata,
        ..Gathered::default()
    };
    if options.asking != Asking::Nobody {
        if options.asking == Asking::Source {
            // An unreadable document has no validators here, so the source sends the whole one.
            let store = Store::open(&config.source.state_dir);
            let read = in_time(&config.source.state_dir, move || {
                let silences = store.read_json(StateFile::Silences);
                (ReadAhead::read(&store), silences.unwrap_or_default())
            });
            (gathered.read_ahead, gathered.silences.before) = read.unwrap_or_default();
        }
        let answered = match &gathered.metadata {
            Metadata::Answer { answer, .. } => answer.as_ref().ok(),
            Metadata::NotAsked | Metadata::LeftToAgent => None,
        };
        let sources = Sources {
            job,
            asker,
            selector: &instance::selector(config, answered),
            read_ahead: &gathered.read_ahead,
            silences: gathered.silences.before.clone(),
        };
        let (answer, silences, mut notes) = sources.ask().await;
        gathered.notes.append(&mut notes);
        gathered.silences.now = silences;
        gathered.source = Some(answer);
    }
    gathered.took = started.elapsed();
    gathered
}

/// The networks of the host, as the question to the metadata service depends on them.
pub(super) fn own_networks(kernel: &mut Kernel) -> Result<Vec<IpNet>, NetlinkError> {
    let addresses = link::dump_addresses(kernel.socket())?;
    Ok(addresses.iter().map(|own| own.net).collect())
}

/// Gathers in this process, for the host of this kernel.
pub(super) async fn for_this_host(
    job: Job<'_>,
    kernel: &mut Kernel,
) -> Result<Gathered, NetlinkError> {
    let own = own_networks(kernel)?;
    Ok(for_command(job, &own).await)
}
