//! The documents and their judgement for a role without a kernel.

use ipnet::IpNet;

use super::documents::{self, Documents, Ground};
use super::gather::Gathered;
use super::instance;
use super::memory::Memory;
use super::persist::{store_documents, store_silences};
use super::report::Laps;
use super::{FetchOutcome, Job, Options, PassError};
use crate::config::{Config, Role};
use crate::guard::{Environment, Judgement};
use crate::notes::Notes;
use crate::state::error::StateFault;
use crate::state::store::Store;
use crate::types::{METADATA, PerFamily};

/// The judged documents of a pass over a VPC.
pub struct Elsewhere {
    documents: Documents,
    /// Notes of the source and of the guard.
    pub notes: Notes,
}

/// The state of the place where the prefixes are in force.
#[derive(Debug)]
pub struct Place<'p> {
    /// The prefixes in force.
    pub present: &'p PerFamily<Vec<IpNet>>,
    /// The VPC's networks, which no document may lead elsewhere.
    pub vpc_cidrs: Vec<IpNet>,
}

/// Lets the guard judge gathered answers. The settings name their regions, without `auto`. `memory` has
/// the documents that the disk has refused.
///
/// # Errors
/// The guard state can't be read, or `--accept` names another document. Nothing may be changed then.
pub fn judge_elsewhere(
    config: &Config,
    options: &Options,
    gathered: Gathered,
    place: Place<'_>,
    memory: &mut Memory,
) -> Result<Elsewhere, PassError> {
    let job = Job {
        config,
        // The role decides about the kernel alone.
        role: Role::Host,
        options,
    };
    let store = Store::open(&config.source.state_dir).with_sync(options.sync);
    let mut notes = gathered.notes;
    if gathered.source.is_some() {
        memory.silences.clone_from(&gathered.silences.now);
    }
    if options.mode.writes() {
        notes.append(&mut store_silences(&store, &gathered.silences));
    }
    let ground = Ground {
        selector: instance::selector(config, None),
        region: Ok(()),
        environment: Environment {
            vpc_cidrs: place.vpc_cidrs,
            own_addresses: Vec::new(),
            gateways: Vec::new(),
            name_servers: Vec::new(),
            sources: config.source.addresses(),
            metadata: METADATA.to_vec(),
        },
        present: place.present.clone(),
    };
    let answers = (gathered.source, gathered.read_ahead);
    let mut laps = Laps::start();
    let (documents, mut more) =
        documents::find(job, &store, &ground, answers, Some(memory), &mut laps)?;
    notes.append(&mut more);
    Ok(Elsewhere { documents, notes })
}

impl Elsewhere {
    /// The judgement of the guard.
    pub fn judgement(&self) -> &Judgement {
        &self.documents.judgement
    }

    /// The result of asking the source.
    pub fn fetch(&self) -> &FetchOutcome {
        &self.documents.fetch
    }

    /// Stores the documents; `memory` keeps those that the disk refuses, for the next pass of this
    /// process. A dry run stores nothing. Returns notes about failures without consequences.
    ///
    /// # Errors
    /// The record of withdrawn prefixes is not on disk, so that no prefix may be withdrawn. A record that
    /// cannot be read is not replaced: the record may be readable later.
    pub fn store(
        &self,
        config: &Config,
        options: &Options,
        memory: &mut Memory,
    ) -> Result<Notes, StateFault> {
        if let Some(unreadable) = &self.documents.on_disk.unreadable {
            if options.mode.writes() {
                memory.keep_unstored(self.documents.unstored());
            }
            return Err(unreadable.clone());
        }
        if !options.mode.writes() {
            return Ok(Notes::default());
        }
        let store = Store::open(&config.source.state_dir).with_sync(options.sync);
        let stored = store_documents(&store, &self.documents);
        memory.keep_unstored(match stored {
            Ok(_) => None,
            Err(_) => self.documents.unstored(),
        });
        stored.map_err(|error| StateFault::from(&error))
    }

    /// Ends a pass that brought everything else about.
    ///
    /// # Errors
    /// No document is in force, and none is held.
    pub fn complain(self) -> Result<(), PassError> {
        self.documents.complain()
    }
}
