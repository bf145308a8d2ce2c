//! Questions to remote services, asked before the pass. The pass holds the state lock, and a slow
//! server must not delay other holders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::fetch_path::Means;
use super::instance::{self, Metadata};
use super::memory::{Memory, Silences};
use super::sources::{SilencesSeen, SourceAnswer, Sources};
use super::stored::ReadAhead;
use super::{Asking, Job, Options};
use crate::config::{Config, Role};
use crate::kernel::lookup::{Lookup, RouteDecision, lookup};
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
    /// The time of the answers.
    pub fn took(&self) -> Duration {
        self.took
    }

    pub(super) fn is_metadata_left_to_agent(&self) -> bool {
        matches!(self.metadata, Metadata::LeftToAgent)
    }
}

/// Asks the metadata service and, unless `options` exclude it, the source. Timeouts bound both
/// questions. Writes nothing and takes no lock. `own` are the addresses of the host,
/// with their networks. `memory` has the sources that asked for silence and that the disk lacks.
pub async fn gather(
    config: &Config,
    role: Role,
    options: &Options,
    asker: &Asker,
    own: &[IpNet],
    memory: Option<&Memory>,
) -> Gathered {
    let job = Job {
        config,
        role,
        options,
    };
    let started = Instant::now();
    let metadata = instance::ask(job, own).await;
    let means = Means {
        asker,
        no_route: false,
        remarks: false,
    };
    let kept = memory.map(|memory| &memory.silences);
    with_sources(job, means, metadata, started, kept).await
}

/// Asks for a command. A running agent's answers serve in place of the metadata service.
pub(super) async fn for_command(job: Job<'_>, host: &Surroundings) -> Gathered {
    let started = Instant::now();
    let metadata = instance::ask_beside_agent(job, &host.own).await;
    let means = Means {
        asker: &Asker::This,
        no_route: host.no_route,
        remarks: true,
    };
    with_sources(job, means, metadata, started, None).await
}

async fn with_sources(
    job: Job<'_>,
    means: Means<'_>,
    metadata: Metadata,
    started: Instant,
    kept: Option<&Silences>,
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
            means,
            selector: &instance::selector(config, answered),
            read_ahead: &gathered.read_ahead,
            silences: gathered.silences.with(kept),
        };
        let (answer, silences, mut notes) = sources.ask().await;
        gathered.notes.append(&mut notes);
        gathered.silences.now = silences;
        gathered.source = Some(answer);
    }
    gathered.took = started.elapsed();
    gathered
}

/// The facts about the host that the questions of a command depend on.
pub(super) struct Surroundings {
    /// The networks of the host.
    own: Vec<IpNet>,
    /// No public address has a route.
    no_route: bool,
}

impl Surroundings {
    /// Reads the facts.
    pub(super) fn read(job: Job<'_>, kernel: &mut Kernel) -> Result<Surroundings, NetlinkError> {
        let addresses = link::dump_addresses(kernel.socket())?;
        let own = addresses.iter().map(|own| own.net).collect();
        let no_route = !has_route(job, kernel)?;
        Ok(Surroundings { own, no_route })
    }
}

/// True if a public address has a route, as packets without and with our mark see the routes. Any
/// address will do: a host with routes to some networks alone fetches from there within a second.
fn has_route(job: Job<'_>, kernel: &mut Kernel) -> Result<bool, NetlinkError> {
    let public: [IpAddr; 2] = [
        Ipv4Addr::new(52, 94, 76, 1).into(),
        Ipv6Addr::new(0x2600, 0x1f00, 0, 0, 0, 0, 0, 1).into(),
    ];
    for destination in public {
        for mark in [0, job.config.kernel.path_mask.packet().value] {
            let question = Lookup {
                mark,
                ..Lookup::from_socket(destination)
            };
            if matches!(lookup(kernel.socket(), &question)?, RouteDecision::Route(_)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Gathers in this process, for the host of this kernel.
pub(super) async fn for_this_host(
    job: Job<'_>,
    kernel: &mut Kernel,
) -> Result<Gathered, NetlinkError> {
    let host = Surroundings::read(job, kernel)?;
    Ok(for_command(job, &host).await)
}
