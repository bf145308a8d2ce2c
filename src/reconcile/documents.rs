//! From the answer of the source to the prefixes in force: the guard's inputs and its judgement.

use std::net::IpAddr;

use ipnet::IpNet;

use super::memory::Memory;
use super::report::Laps;
use super::sources::SourceAnswer;
use super::stored::{LastKnownGood, OnDisk, ReadAhead};
use super::{Asking, FetchOutcome, Job, PassError, View};
use crate::clock;
use crate::config::{AutoOr, Config};
use crate::guard::{
    AcceptError, Decision, Environment, Fetch, GuardInputs, GuardState, Judgement, LastGood, Level,
    Whose, judge,
};
use crate::notes::Notes;
use crate::ranges::{BadRow, Document, DocumentError, Selection, Selector, select_lenient};
use crate::source::Fetched;
use crate::state::store::{Meta, Store, Stored};
use crate::types::{Family, PerFamily, SyncToken};

/// The answer of the source, compared with the documents on disk.
pub(super) enum Answer {
    NotAsked,
    /// The last known good, byte for byte; with its description if only the validators changed.
    Unchanged(Option<Meta>),
    /// The held document, byte for byte.
    SameAsHeld,
    Document(Meta, Vec<u8>),
    /// The source answered without a usable document.
    Rejected(String),
    /// The source didn't answer.
    Failed(String),
}

impl Answer {
    /// Compares the gathered answer with the documents on disk.
    pub fn of(gathered: Option<SourceAnswer>, on_disk: &OnDisk) -> Answer {
        let Some(gathered) = gathered else {
            return Answer::NotAsked;
        };
        let (bytes, url, validators) = match gathered.fetched {
            // Another pass has replaced the document since the request, so the answer says
            // nothing about the document now on disk.
            Ok(Fetched::NotModified { .. })
                if gathered.validators.as_ref() != on_disk.validators() =>
            {
                return Answer::NotAsked;
            }
            Ok(Fetched::NotModified { .. }) if on_disk.held.is_some() => return Answer::SameAsHeld,
            Ok(Fetched::NotModified { .. }) => return Answer::Unchanged(None),
            Err(error) if error.is_answer() => return Answer::Rejected(error.to_string()),
            Err(error) => return Answer::Failed(error.to_string()),
            Ok(Fetched::Document {
                bytes,
                url,
                validators,
                ..
            }) => (bytes, url, validators),
        };
        let meta = Meta {
            url,
            validators,
            fetched_at: clock::unix_seconds(),
            sync_token: None,
        };
        let same = |stored: &&Stored| stored.body() == bytes;
        if on_disk.held.as_ref().filter(same).is_some() {
            return Answer::SameAsHeld;
        }
        if let Some(stored) = on_disk.last_good.stored().filter(same) {
            let other_validators = stored.meta().validators != meta.validators;
            return Answer::Unchanged(other_validators.then_some(meta));
        }
        Answer::Document(meta, bytes)
    }

    fn parse(&self) -> Option<Result<Document<'_>, DocumentError>> {
        match self {
            Answer::Document(_, bytes) => Some(Document::parse(bytes)),
            _ => None,
        }
    }

    fn for_guard<'d>(&self, parsed: Option<&'d Result<Document<'d>, DocumentError>>) -> Fetch<'d> {
        match (self, parsed) {
            (_, Some(Ok(document))) => Fetch::Document(document),
            (Answer::Document(meta, _), Some(Err(error))) => {
                Fetch::Rejected(format!("{}: {error}", meta.url))
            }
            (_, Some(Err(error))) => Fetch::Rejected(error.to_string()),
            (Answer::Document(..), None) => Fetch::Failed("no document".to_owned()),
            (Answer::NotAsked, _) => Fetch::NotAsked,
            (Answer::Unchanged(_), _) => Fetch::Unchanged,
            (Answer::SameAsHeld, _) => Fetch::SameAsHeld,
            (Answer::Rejected(why), _) => Fetch::Rejected(why.clone()),
            (Answer::Failed(why), _) => Fetch::Failed(why.clone()),
        }
    }
}

/// The facts that the judgement of a document depends on, apart from the documents.
#[derive(Debug)]
pub(super) struct Ground {
    pub selector: Selector,
    /// An error if a selected region is unknown, with the reason.
    pub region: Result<(), Option<String>>,
    /// Addresses that no document may put on the bypass path.
    pub environment: Environment,
    /// The prefixes that lead to the bypass path now.
    pub present: PerFamily<Vec<IpNet>>,
}

/// The result of the first stages.
pub(super) struct Seen {
    pub view: View,
    /// An error leaves the bypass path as it is.
    pub documents: Result<Documents, PassError>,
}

/// Documents and the guard's judgement of them, for the rest of the pass.
pub(super) struct Documents {
    pub judgement: Judgement,
    pub fetch: FetchOutcome,
    pub on_disk: OnDisk,
    pub answer: Answer,
    /// An error that ends the pass although everything without need of a document is in force.
    pub complaint: Option<PassError>,
}

impl Documents {
    /// The documents with rows in force, byte for byte.
    pub fn in_force(&self) -> Vec<&[u8]> {
        let last = self.on_disk.last_good.stored().map(Stored::body);
        let held = self.on_disk.held.as_ref().map(Stored::body);
        let fetched = match &self.answer {
            Answer::Document(_, bytes) => Some(bytes.as_slice()),
            _ => None,
        };
        let found = match self.judgement.decision {
            Decision::Accept(Whose::Fetched) => [fetched, None],
            Decision::Accept(Whose::Held) => [held, None],
            Decision::HoldWithdrawals(Whose::Fetched) => [last, fetched],
            Decision::HoldWithdrawals(Whose::Held) => [last, held],
            Decision::Keep | Decision::HoldAll(_) => [last, None],
        };
        found.into_iter().flatten().collect()
    }

    /// True if the guard held the same selection before, for the same reasons.
    pub fn holds_as_before(&self) -> bool {
        match (&self.judgement.state.hold, &self.on_disk.guard.hold) {
            (Some(now), Some(before)) => now.is_same(before),
            _ => false,
        }
    }

    /// The prefixes in force. `None` without a document.
    pub fn prefixes_in_force(&self) -> Option<PerFamily<Vec<IpNet>>> {
        let judgement = &self.judgement;
        (!judgement.nothing_in_force).then(|| judgement.ranges.prefixes.clone())
    }

    /// Ends a pass that brought everything else about. A hold is reported as such, not as an error.
    pub fn complain(self) -> Result<(), PassError> {
        match self.complaint {
            Some(complaint) if !self.judgement.held => Err(complaint),
            _ => Ok(()),
        }
    }
}

/// Reads the documents on disk, compares them with the answer of the source, and lets the guard
/// judge. Returns notes beside the documents. `memory`, an agent's, keeps the selection of the last
/// known good for passes without an answer.
///
/// # Errors
/// The guard state can't be read, or `--accept` names another document. Nothing may be changed then.
pub(super) fn find(
    job: Job<'_>,
    store: &Store,
    ground: &Ground,
    (source, read_ahead): (Option<SourceAnswer>, ReadAhead),
    memory: Option<&mut Memory>,
    laps: &mut Laps,
) -> Result<(Documents, Notes), PassError> {
    let selector = ground.selector.clone();
    let recalling = (memory.as_deref(), &selector, source.is_some());
    let (on_disk, notes) = OnDisk::read(store, job.options, read_ahead, recalling)?;
    let answer = Answer::of(source, &on_disk);
    laps.end("source");
    let documents = judge_documents(job, ground, selector, on_disk, answer, memory)?;
    laps.end("guard");
    Ok((documents, notes))
}

fn judge_documents(
    job: Job<'_>,
    ground: &Ground,
    selector: Selector,
    mut on_disk: OnDisk,
    mut answer: Answer,
    memory: Option<&mut Memory>,
) -> Result<Documents, PassError> {
    let fetched = answer.parse();
    let token = match &fetched {
        Some(Ok(document)) => Some(document.sync_token),
        _ => None,
    };
    let last_parsed = on_disk.last_good.stored();
    let last_parsed = last_parsed.map(|stored| Document::parse(stored.body()));
    let selected = match &last_parsed {
        Some(Ok(document)) if memory.is_some() => Some(select_lenient(document, &selector)),
        _ => None,
    };
    let remembered = match (&on_disk.last_good, &memory) {
        (LastKnownGood::Remembered, Some(memory)) => {
            memory.recall(on_disk.file.as_ref(), &selector)
        }
        _ => None,
    };
    let last_good = match (&on_disk.last_good, &last_parsed) {
        (_, Some(Ok(document))) => read_document(document, selected.as_ref()),
        (_, Some(Err(error))) => LastGood::Unreadable(error.to_string()),
        (LastKnownGood::Unreadable(error), _) => LastGood::Unreadable(error.clone()),
        _ => remembered.map_or(LastGood::Absent, |known| known.as_last_good()),
    };
    let held = on_disk.held.as_ref();
    let held = held.and_then(|stored| Document::parse(stored.body()).ok());
    let fetch = answer.for_guard(fetched.as_ref());
    let candidates = (fetch, held.as_ref(), last_good);
    let source = match &answer {
        Answer::Document(meta, _) => Some(meta.url.as_str()),
        _ => on_disk.held.as_ref().map(|held| held.meta().url.as_str()),
    };
    let sources = (source, token);
    let mut judgement = ask_guard(job, ground, &selector, &on_disk, candidates, sources)?;
    let region_is_known = ground.region.is_ok();
    let complaint = if let Err(Some(error)) = &ground.region {
        Some(PassError::NoRegion(error.clone()))
    } else {
        complaint(&judgement, &answer)
    };
    if !region_is_known {
        // An unknown region selects no prefix, which must not pass for an empty selection.
        judgement.nothing_in_force = true;
        judgement.decision = Decision::Keep;
        judgement.held = false;
        judgement.degraded.clear();
        judgement.state = rebased(&on_disk.guard);
    }
    if let (Some(memory), Some(file), Some(selected), Some(Ok(document))) =
        (memory, &on_disk.file, selected, &last_parsed)
        && !on_disk.unstored
    {
        memory.keep(file.clone(), selector, document, selected);
    }
    drop((fetched, last_parsed, held));
    if !region_is_known {
        // The held document stays on disk, since the guard has not judged it.
        on_disk.held = None;
    }
    if let Answer::Document(meta, _) = &mut answer {
        meta.sync_token = token;
    }
    Ok(Documents {
        fetch: fetch_outcome(&answer, &judgement),
        judgement,
        on_disk,
        answer,
        complaint,
    })
}

/// Lets the guard judge the answer, the held document and the last known good.
fn ask_guard(
    job: Job<'_>,
    ground: &Ground,
    selector: &Selector,
    on_disk: &OnDisk,
    (fetch, held, last_good): (Fetch<'_>, Option<&Document<'_>>, LastGood<'_>),
    (source, fetched): (Option<&str>, Option<SyncToken>),
) -> Result<Judgement, PassError> {
    let Job {
        config, options, ..
    } = job;
    let alone = options.asking == Asking::SourceAlone;
    let kernel_prefixes = if alone {
        PerFamily::default()
    } else {
        ground.present.clone()
    };
    let state = rebased(&on_disk.guard);
    judge(&GuardInputs {
        fetch,
        source,
        held,
        last_good,
        now: state.present().unwrap_or_else(wall_seconds),
        state: &state,
        state_unreadable: on_disk.incomplete,
        config: &config.guard,
        selector,
        include: &config.select.include,
        exclude: &config.select.exclude,
        environment: &ground.environment,
        // A document judged alone counts as accepted, so that every prefix is listed.
        accept: fetched.filter(|_| alone).or(options.accept),
        kernel_prefixes: &kernel_prefixes,
    })
    .map_err(|error| match error {
        // The operator gave no `--accept`.
        AcceptError::Unusable { reason, .. } if alone => PassError::NoDocument(reason),
        error => error.into(),
    })
}

/// The guard state, moved along with the wall clock.
fn rebased(state: &GuardState) -> GuardState {
    match clock::anchor() {
        Some(now) => state.rebase(&now),
        None => state.clone(),
    }
}

fn wall_seconds() -> i64 {
    i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX)
}

fn read_document<'d>(
    document: &'d Document<'d>,
    selected: Option<&'d (Selection, Vec<BadRow>)>,
) -> LastGood<'d> {
    match selected {
        Some((selection, bad)) => LastGood::Selected {
            document,
            selection,
            bad,
        },
        None => LastGood::Document(document),
    }
}

fn rejection(judgement: &Judgement) -> Option<String> {
    let mut verdicts = judgement.verdicts.iter();
    let rejected = verdicts.find(|verdict| verdict.level == Level::Reject);
    rejected.map(|verdict| verdict.message.clone())
}

fn complaint(judgement: &Judgement, answer: &Answer) -> Option<PassError> {
    if !judgement.nothing_in_force {
        return None;
    }
    let reason = rejection(judgement).unwrap_or_else(|| match answer {
        Answer::Failed(why) | Answer::Rejected(why) => why.clone(),
        Answer::NotAsked => "no source has been asked yet".to_owned(),
        _ => "none was accepted".to_owned(),
    });
    Some(PassError::NoDocument(reason))
}

fn fetch_outcome(answer: &Answer, judgement: &Judgement) -> FetchOutcome {
    match (answer, judgement.decision) {
        (Answer::NotAsked, _) => FetchOutcome::NotAsked,
        (Answer::Failed(why), _) => FetchOutcome::Failed(why.clone()),
        (Answer::Rejected(why), _) => FetchOutcome::Rejected(why.clone()),
        (Answer::Unchanged(_), _) => FetchOutcome::Unchanged,
        (_, Decision::Accept(_)) => FetchOutcome::Changed,
        (_, Decision::HoldAll(_) | Decision::HoldWithdrawals(_)) => FetchOutcome::Held,
        (Answer::Document(..) | Answer::SameAsHeld, Decision::Keep) => {
            let reason = rejection(judgement);
            FetchOutcome::Rejected(
                reason.unwrap_or_else(|| "the guard keeps the last known good".to_owned()),
            )
        }
    }
}

pub(super) fn configured_gateways(config: &Config) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = config.egress.addresses().collect();
    for family in Family::ALL {
        if let AutoOr::Set(gateway) = config.bypass.gateway.get(family) {
            gateways.push(*gateway);
        }
    }
    gateways
}
