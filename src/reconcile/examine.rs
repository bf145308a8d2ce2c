//! What a pass would go by, looked at without a pass: for `explain`, `ranges` and `check`.

use super::{Asking, Firewalls, Options, Pass, PassError, View};
use crate::config::{Config, Role};
use crate::guard::Judgement;
use crate::kernel::Kernel;
use crate::notes::Notes;

/// What was seen.
#[derive(Debug)]
pub struct Examined {
    /// The host and the kernel.
    pub view: View,
    /// The prefixes in force, and what the guard says.
    pub judgement: Judgement,
    /// The documents whose rows are in force, byte for byte.
    pub documents: Vec<Vec<u8>>,
    /// What makes a pass fail although the egress path is in force: no region, no document.
    pub complaint: Option<PassError>,
    /// What the operator should know.
    pub notes: Notes,
}

/// Looks, exactly as a dry run does, and stops before the plan. Writes nothing anywhere.
///
/// # Errors
/// As a dry run that never gets to its plan.
pub async fn examine(
    config: &Config,
    role: Role,
    asking: Asking,
    firewalls: Firewalls,
    kernel: &mut Kernel,
) -> Result<Examined, PassError> {
    let options = Options {
        dry_run: true,
        asking,
        ..Options::default()
    };
    let mut pass = Pass::new(config, role, &options);
    let ownership = pass.ownership()?;
    let mut view = View::open(&mut pass, kernel, ownership, firewalls).await?;
    let documents = pass.documents(&view).await?;
    view.prefixes = (!documents.judgement.nothing_in_force)
        .then(|| documents.judgement.ranges.prefixes.clone());
    let bodies = documents
        .in_force()
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    let judgement = documents.judgement.clone();
    Ok(Examined {
        view,
        documents: bodies,
        complaint: documents.complaint(false).err(),
        judgement,
        notes: pass.report.notes,
    })
}
