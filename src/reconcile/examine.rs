//! The view and the judgement of a pass without the pass, for `explain`, `ranges`, `check` and
//! `status`.

use super::gather::for_this_host;
use super::pass::Pass;
use super::{Asking, Firewalls, Job, Mode, Options, PassError, View};
use crate::config::{Config, Role};
use crate::degraded;
use crate::guard::Judgement;
use crate::kernel::Kernel;
use crate::notes::Notes;

/// The view and the judgement.
#[derive(Debug)]
pub struct Examined {
    pub view: View,
    pub judgement: Judgement,
    /// The documents with rows in force, byte for byte.
    pub documents: Vec<Vec<u8>>,
    /// The error of a pass that has no region or no document, but an egress path in force.
    pub complaint: Option<PassError>,
    pub notes: Notes,
    /// True if the settings need facts of the metadata service, and the running agent asks for them.
    pub metadata_left_to_agent: bool,
}

/// Does the first stages of a dry run and stops before the plan. Writes nothing.
///
/// # Errors
/// The errors of a dry run up to the plan.
pub async fn examine(
    config: &Config,
    role: Role,
    asking: Asking,
    firewalls: Firewalls,
    kernel: &mut Kernel,
) -> Result<Examined, PassError> {
    let options = Options {
        mode: Mode::DryRun,
        asking,
        ..Options::default()
    };
    let job = Job {
        config,
        role,
        options: &options,
    };
    let gathered = for_this_host(job, kernel).await?;
    let metadata_left_to_agent = gathered.is_metadata_left_to_agent();
    let mut pass = Pass::new(job);
    let answers = pass.state_dir_answers();
    let seen = pass.look(kernel, gathered, firewalls, answers)?;
    let documents = seen.documents?;
    let bodies = documents.in_force().into_iter().map(<[u8]>::to_vec);
    let bodies = bodies.collect();
    let mut judgement = documents.judgement;
    // A held region among them.
    degraded::merge(&mut judgement.degraded, pass.report.degraded);
    Ok(Examined {
        documents: bodies,
        judgement,
        complaint: documents.complaint,
        view: seen.view,
        notes: pass.report.notes,
        metadata_left_to_agent,
    })
}
