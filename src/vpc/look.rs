//! The first stages of a pass: the answers of EC2 and of the source, and the judgement of the documents.

use super::apply::Waits;
use super::drift::Left;
use super::ec2::Ec2;
use super::error::VpcError;
use super::ledger::{self, Ledger};
use super::observe::{EntryCache, observe};
use super::observed::ObservedPlane;
use super::refused::Refused;
use crate::config::{Config, PlaneMode, Role};
use crate::reconcile::{
    Elsewhere, Gathered, Memory, Options, PassError, Place, gather, judge_elsewhere,
};
use crate::source::child::Asker;
use crate::types::PerFamily;

/// The memory of an agent between passes.
#[derive(Debug, Default)]
pub struct PassMemory {
    pub entries: EntryCache,
    pub waits: Waits,
    /// The process that asks the source; `None` for this one.
    pub asker: Option<Asker>,
    /// Documents that the disk has refused, and the selection of the last one.
    pub documents: Memory,
    /// The last ledger of `mode = "routes"`, also one that the disk has refused.
    pub ledger: Option<Refused<Ledger>>,
    /// The lists as left, if the disk has refused them.
    pub left: Option<Refused<PerFamily<Option<Left>>>>,
}

/// Asks the source and EC2 at the same time.
///
/// # Errors
/// EC2 cannot be read. A silent source is an answer.
pub async fn ask(
    ec2: &Ec2,
    config: &Config,
    options: &Options,
    memory: &mut PassMemory,
) -> Result<(Gathered, ObservedPlane), VpcError> {
    let asker = memory.asker.clone().unwrap_or(Asker::This);
    let gathering = gather(
        config,
        Role::Host,
        options,
        &asker,
        &[],
        Some(&memory.documents),
    );
    let observing = observe(ec2, &config.vpc_plane, &mut memory.entries);
    let (gathered, observed) = tokio::join!(gathering, observing);
    Ok((gathered, observed?))
}

/// Lets the guard judge the answers of the source, beside our prefixes in force: those of our lists, or
/// of the routes that are ours.
///
/// # Errors
/// The guard state can't be read, or `--accept` names another document.
pub fn judge(
    config: &Config,
    options: &Options,
    gathered: Gathered,
    observed: &ObservedPlane,
    known: Option<&Ledger>,
    memory: &mut Memory,
) -> Result<Elsewhere, PassError> {
    let present = match config.vpc_plane.mode {
        PlaneMode::PrefixList => observed.prefixes(),
        PlaneMode::Routes => {
            let targets = ledger::targets(&config.vpc_plane);
            ledger::present(&observed.tables, known, &targets)
        }
    };
    let place = Place {
        present: &present,
        vpc_cidrs: observed.vpc_cidrs(),
    };
    judge_elsewhere(config, options, gathered, place, memory)
}
