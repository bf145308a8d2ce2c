//! What a pass asks of the outside world, asked ahead of it: an agent's pass waits for nobody.

use super::{fetch_path, instance};
use crate::config::{Config, Role};
use crate::facts::{HostFacts, InstanceFacts};
use crate::notes::Notes;
use crate::source::child::Asker;
use crate::source::imds::ImdsError;
use crate::source::{Fetched, SourceError, Validators};
use crate::state::store::{Slot, Store};

/// The metadata service's part.
#[derive(Debug, Default)]
pub(super) enum Metadata {
    /// It wasn't asked: its last word for this machine counts, if there is one.
    #[default]
    NotAsked,
    /// What it said.
    Answer(Result<InstanceFacts, ImdsError>),
}

/// The source's part.
#[derive(Debug)]
pub(super) struct SourceAnswer {
    /// What the request was conditional on: "not modified" speaks of that document alone.
    pub validators: Option<Validators>,
    pub fetched: Result<Fetched, SourceError>,
}

/// Answers for one pass. The default has none: the pass goes by what the state dir knows.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(super) metadata: Metadata,
    pub(super) source: Option<SourceAnswer>,
    pub(super) notes: Notes,
}

/// Asks the metadata service and, by `asker`, the source, bounded by their timeouts. Writes nothing.
pub async fn gather(config: &Config, role: Role, asker: &Asker, facts: &HostFacts) -> Gathered {
    let mut gathered = Gathered::default();
    if let Some(answer) = instance::ask(config, role, facts).await {
        gathered.metadata = Metadata::Answer(answer);
    }
    let store = Store::open(&config.source.state_dir);
    // An unreadable document is asked for as a whole; that it can't be read is the pass's to say.
    let validators = [Slot::Held, Slot::LastKnownGood]
        .into_iter()
        .find_map(|slot| store.read(slot).ok())
        .and_then(|stored| stored.meta().validators.clone());
    let fetched = fetch_path::fetch_document(
        config,
        role,
        asker,
        validators.as_ref(),
        &mut gathered.notes,
    )
    .await;
    gathered.source = Some(SourceAnswer {
        validators,
        fetched,
    });
    gathered
}
