//! The view and the judgement of a pass without the pass, for `explain`, `ranges`, `check` and
//! `status`.

use super::gather::for_this_host;
use super::pass::Pass;
use super::{Asking, Firewalls, Job, Mode, Options, PassError, View};
use crate::config::{Config, Role};
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
    let mut pass = Pass::new(job);
    let seen = pass.look(kernel, gathered, firewalls, true)?;
    let documents = seen.documents?;
    let bodies = documents.in_force().into_iter();
    Ok(Examined {
        documents: bodies.map(<[u8]>::to_vec).collect(),
        judgement: documents.judgement,
        complaint: documents.complaint,
        view: seen.view,
        notes: pass.report.notes,
    })
}
