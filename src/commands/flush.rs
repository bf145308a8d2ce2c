//! `trailblazer flush`, the kill switch: removes all objects of ours, rules first. A failed step
//! doesn't stop the flush, and the command needs neither a config nor a state dir.

mod drain;
mod numbers;
mod outcome;
mod pause;

use std::time::Instant;

use jiff::Timestamp;

use super::{complain, print, style, vpc};
use crate::apply::{ApplyError, apply};
use crate::cli::FlushArgs;
use crate::exit;
use crate::firewall::{BackendKind, ObservedFirewall};
use crate::journal::{Journal, PassId, Record};
use crate::kernel::privilege::has_net_admin;
use crate::kernel::{Kernel, ObserveError};
use crate::observed::ObservedState;
use crate::ownership::Ownership;
use crate::plan::{Goal, Plan, plan};
use crate::reconcile::{FILE_WAIT, LOCK_WAIT};
use crate::state::StateFile;
use crate::state::error::StateError;
use crate::state::lock::{FLUSH, LockError, PassLock};
use crate::state::store::Store;
use numbers::Known;
use outcome::Flushed;

/// Most rounds of reading and removing: objects may change meanwhile.
const ROUNDS: usize = 3;

const OTHER_CONFIG: &str = "found Trailblazer's firewall rules, but no routes or policy rules with these table and protocol numbers: if another config was in force, run flush again with -c and that config";

/// Runs `flush` and returns the exit code.
pub async fn run(arguments: &FlushArgs) -> u8 {
    let known = match numbers::find(&arguments.base) {
        Ok(known) => known,
        Err(wrong) => {
            complain(&wrong);
            return wrong.exit_code();
        }
    };
    if known.config.vpc_role {
        return vpc::flush(arguments, &known.config).await;
    }
    let flushed = if arguments.drain {
        drain::run(&known, arguments).await
    } else if arguments.dry_run {
        preview(&known)
    } else {
        let all = &mut |kernel: &mut Kernel, flushed: &mut Flushed, log: &mut Log<'_>| {
            remove(&known, kernel, flushed, log);
        };
        flush(&known, true, all)
    };
    print(
        arguments.base.output,
        || flushed.to_text(&known.ownership, style()),
        || flushed.to_json(),
    );
    for error in &flushed.errors {
        complain(error);
    }
    flushed.exit_code()
}

/// Reads the objects that a flush removes. Changes no kernel object and no file.
fn preview(known: &Known) -> Flushed {
    let mut flushed = Flushed::preview(known.notes.clone());
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            flushed.errors.push(error.to_string());
            return flushed;
        }
    };
    let mut notes = Vec::new();
    match observe(
        &mut kernel,
        &known.ownership,
        &mut notes,
        &mut flushed.errors,
    ) {
        Ok(observed) => {
            let steps = plan(&Goal::nothing(), &observed, &known.ownership);
            flushed.take_first(&mut kernel, steps, notes);
            flushed.name_orphans(&mut kernel, &observed, &known.ownership);
        }
        Err(error) => flushed.errors.push(error.to_string()),
    }
    flushed
}

/// Removes objects from the kernel, with the steps in the report.
type Removal<'r> = &'r mut dyn FnMut(&mut Kernel, &mut Flushed, &mut Log<'_>);

/// The journal of one removal.
struct Log<'j> {
    journal: Option<&'j Journal>,
    id: PassId,
    has_begun: bool,
}

impl Log<'_> {
    /// Writes the first line, with the steps of the report.
    fn begin(&mut self, flushed: &mut Flushed) {
        if let Some(journal) = self.journal.filter(|_| !self.has_begun) {
            let begin = Record::begin(Timestamp::now(), self.id.clone(), FLUSH);
            append(journal, flushed.filled(begin), &mut flushed.notes);
        }
        self.has_begun = true;
    }
}

/// Removes objects with the lock held. With `pauses`, a running agent pauses before.
fn flush(known: &Known, pauses: bool, removal: Removal<'_>) -> Flushed {
    let started = Instant::now();
    let mut flushed = Flushed::new(known.notes.clone());
    if has_net_admin() == Some(false) {
        flushed.errors.push(
            "removing routes, rules and firewall needs CAP_NET_ADMIN: run as root (sudo trailblazer flush)"
                .to_owned(),
        );
        return flushed;
    }
    if pauses {
        pause::agent(&known.socket, &mut flushed);
    }
    let lock = match lock(known, &mut flushed.notes) {
        Ok(lock) => lock,
        Err(held) => {
            flushed.errors.push(held.to_string());
            return flushed;
        }
    };
    // A disk can fall silent later: the lock is the first file written.
    let is_silent = |lock: &PassLock| lock.failure().is_some_and(StateError::is_silent);
    let has_state_dir = known.has_state_dir && !lock.as_ref().is_some_and(is_silent);
    let journal = has_state_dir.then(|| Journal::new(&known.state_dir));
    let mut log = Log {
        journal: journal.as_ref(),
        id: PassId::new(Timestamp::now()),
        has_begun: false,
    };
    match Kernel::open() {
        Ok(kernel) => {
            let mut kernel = kernel.protect(&pause::owner_of_table(&known.socket));
            removal(&mut kernel, &mut flushed, &mut log);
        }
        Err(error) => {
            log.has_begun = true;
            flushed.errors.push(error.to_string());
        }
    }
    if flushed.errors.is_empty() && has_state_dir {
        let store = Store::open(&known.state_dir);
        // Without flows left, no object has the numbers any more.
        let numbers = flushed.left.is_empty().then_some(StateFile::Numbers);
        for file in numbers.into_iter().chain([StateFile::InForce]) {
            if let Err(error) = store.remove_json(file) {
                flushed.notes.push(error.to_string());
            }
        }
    }
    flushed.duration = started.elapsed();
    if let Some(journal) = journal.as_ref().filter(|_| log.has_begun) {
        let end = Record::end(
            Timestamp::now(),
            log.id,
            FLUSH,
            flushed.recorded(),
            flushed.duration,
        );
        let error = (!flushed.errors.is_empty()).then(|| flushed.errors.join("; "));
        append(
            journal,
            flushed.filled(end).with_error(error),
            &mut flushed.notes,
        );
    }
    flushed
}

/// Takes the pass lock, without its file if no state dir exists. A disk error and a file in other
/// hands don't stop the kill switch. Another pass does, since it would restore the removed objects.
fn lock(known: &Known, notes: &mut Vec<String>) -> Result<Option<PassLock>, LockError> {
    let mut lock = PassLock::exclude(&known.state_dir, FLUSH, LOCK_WAIT)?;
    if !known.has_state_dir {
        return Ok(Some(lock));
    }
    let wait = if lock.excludes() {
        FILE_WAIT
    } else {
        LOCK_WAIT
    };
    let failure = match lock.lock_file(wait) {
        Ok(()) => lock.failure().map(ToString::to_string),
        // No pass of this network namespace runs, whoever holds the file.
        Err(held) if lock.excludes() => Some(held.to_string()),
        Err(held) => return Err(held),
    };
    notes.extend(failure.map(|error| format!("{error}; flushed without the lock file")));
    Ok(Some(lock))
}

fn append(journal: &Journal, record: Record, notes: &mut Vec<String>) {
    if let Err(error) = journal.append(&record) {
        notes.push(format!("cannot write this flush to the journal: {error}"));
    }
}

fn remove(known: &Known, kernel: &mut Kernel, flushed: &mut Flushed, log: &mut Log<'_>) {
    let ownership = &known.ownership;
    let mut trouble = Vec::new();
    for round in 0..ROUNDS {
        let mut notes = Vec::new();
        let mut unknown = Vec::new();
        let observed = match observe(kernel, ownership, &mut notes, &mut unknown) {
            Ok(observed) => observed,
            Err(error) => {
                log.has_begun = true;
                flushed.errors.append(&mut trouble);
                flushed.errors.push(error.to_string());
                return;
            }
        };
        let steps = plan(&Goal::nothing(), &observed, ownership);
        if round == 0 {
            flushed.take_first(kernel, steps.clone(), notes);
            if flushed.firewall_alone() {
                flushed.notes.push(OTHER_CONFIG.to_owned());
            }
            log.begin(flushed);
        }
        let beside = if round == 0 {
            partly_foreign(&observed)
        } else {
            Vec::new()
        };
        if steps.is_empty() && beside.is_empty() {
            // Errors of earlier rounds don't matter: no object is left.
            flushed.errors.append(&mut unknown);
            flushed.name_orphans(kernel, &observed, ownership);
            return;
        }
        trouble = apply_all(steps, kernel, ownership);
        for kind in beside {
            if let Err(error) = kernel.firewall(kind).remove() {
                flushed.errors.push(error.to_string());
            }
        }
    }
    finish(known, kernel, flushed, trouble);
}

/// Reads once more and reports the remaining objects with the errors so far.
fn finish(known: &Known, kernel: &mut Kernel, flushed: &mut Flushed, mut trouble: Vec<String>) {
    let mut unknown = Vec::new();
    match observe(kernel, &known.ownership, &mut Vec::new(), &mut unknown) {
        Err(error) => trouble.push(error.to_string()),
        Ok(observed) => {
            let left = plan(&Goal::nothing(), &observed, &known.ownership);
            flushed.name_orphans(kernel, &observed, &known.ownership);
            if left.is_empty() && unknown.is_empty() {
                return;
            }
            if !left.is_empty() {
                trouble.push(outcome::left_text(&left));
            }
            trouble.append(&mut unknown);
        }
    }
    flushed.errors.extend(trouble);
}

/// Reads all objects that may be ours. An unreadable firewall is an error if it certainly has rules
/// of ours, else a note.
fn observe(
    kernel: &mut Kernel,
    ownership: &Ownership,
    notes: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<ObservedState, ObserveError> {
    let mut observed = kernel.observe(ownership, &[])?;
    if let Some(why) = &observed.policies.unreadable {
        unknown.push(format!(
            "cannot read the xfrm policies, so that some of Trailblazer may be left: {why}"
        ));
    }
    for kind in BackendKind::ALL {
        let found = match kernel.firewall(kind).observe() {
            Ok(found) => found,
            Err(error) => ObservedFirewall::Unreadable(error.to_string()),
        };
        match &found {
            ObservedFirewall::Unavailable(why) | ObservedFirewall::Unreadable(why) => {
                if kernel.firewall(kind).certainly_holds_ours(&found) {
                    unknown.push(format!("{kind}: cannot remove Trailblazer's rules: {why}"));
                } else {
                    notes.push(format!("{kind}: not checked: {why}"));
                }
            }
            ObservedFirewall::Foreign(what) => {
                notes.push(format!("{kind}: foreign object not removed: {what}"));
            }
            ObservedFirewall::Absent | ObservedFirewall::Owned(_) => {}
        }
        observed.firewalls.insert(kind, found);
    }
    Ok(observed)
}

/// Executes every possible step. `apply` ends at a group with a failure, so the following steps are
/// the next plan. A delete sent twice succeeds: the second one finds no object.
fn apply_all(mut steps: Plan, kernel: &mut Kernel, ownership: &Ownership) -> Vec<String> {
    let mut trouble = Vec::new();
    while !steps.is_empty() {
        match apply(&steps, kernel, ownership, None, &mut || {}) {
            Ok(()) => break,
            Err(error @ (ApplyError::Netlink(_) | ApplyError::Stopped)) => {
                // The number of executed steps is unknown: the next round reads again.
                trouble.push(error.to_string());
                break;
            }
            Err(ApplyError::Steps(failures)) => {
                let last = failures.iter().map(|failure| failure.index).max();
                trouble.extend(
                    failures
                        .iter()
                        .map(|failure| format!("{}: {}", failure.step, failure.reason)),
                );
                steps.steps.drain(..=last.unwrap_or(steps.steps.len() - 1));
            }
        }
    }
    trouble
}

/// The backends that report a foreign object of our name and may hold ours beside it.
fn partly_foreign(observed: &ObservedState) -> Vec<BackendKind> {
    let found = observed.firewalls.iter();
    found
        .filter(|(kind, found)| {
            kind.removes_beside_foreign() && matches!(found, ObservedFirewall::Foreign(_))
        })
        .map(|(kind, _)| *kind)
        .collect()
}

impl Flushed {
    fn name_orphans(
        &mut self,
        kernel: &mut Kernel,
        observed: &ObservedState,
        ownership: &Ownership,
    ) {
        match outcome::orphans(kernel, &observed.rules, ownership) {
            Ok(orphans) => self.errors.extend(orphans),
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    fn exit_code(&self) -> u8 {
        match self.outcome() {
            "failed" => exit::FAILED,
            "pending" => exit::PENDING,
            "draining" if self.waited => exit::PENDING,
            _ => exit::OK,
        }
    }
}
