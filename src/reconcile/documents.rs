//! Source, ranges, guard: from bytes to the prefixes in force, and back to the state dir.

use std::net::IpAddr;

use super::memory::{FileId, Remembered};
use super::{Asking, Fetch as Fate, Pass, PassError, View, fetch_path, instance};
use crate::config::AutoOr;
use crate::guard::{
    AcceptError, Decision, Environment, Fetch, GuardState, Inputs, Judgement, LastGood, Level,
    Whose, judge,
};
use crate::ranges::{Document, Selector, select_lenient};
use crate::source::Fetched;
use crate::source::child::Asker;
use crate::state::StateFile;
use crate::state::store::{Meta, ReadError, Slot, Stored};
use crate::types::Family;

/// The metadata service and its neighbours ("Instance metadata and user data", EC2 User Guide).
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];

/// What came of the document.
pub(super) struct Documents {
    pub judgement: Judgement,
    pub(super) state_before: GuardState,
    /// The fetched document, where the judgement may want it kept.
    pub(super) fetched: Option<(Meta, Vec<u8>)>,
    pub(super) held: Option<Stored>,
    /// The last known good under new validators: the source changed those alone.
    pub(super) revalidated: Option<Meta>,
    pub(super) last_good: Option<Stored>,
    complaint: Option<PassError>,
    /// The source says that what is in force after this is its newest document.
    pub(super) confirmed: bool,
}

impl Documents {
    /// The documents whose rows are in force, byte for byte.
    pub fn in_force(&self) -> Vec<&[u8]> {
        let last = self.last_good.as_ref().map(Stored::body);
        let fetched = self.fetched.as_ref().map(|(_, bytes)| bytes.as_slice());
        let held = self.held.as_ref().map(Stored::body);
        let found = match self.judgement.decision {
            Decision::Accept(Whose::Fetched) => [fetched, None],
            Decision::Accept(Whose::Held) => [held, None],
            Decision::HoldWithdrawals(Whose::Fetched) => [last, fetched],
            Decision::HoldWithdrawals(Whose::Held) => [last, held],
            Decision::Keep | Decision::HoldAll(_) => [last, None],
        };
        found.into_iter().flatten().collect()
    }

    /// What makes the pass fail in the end although the egress path is in force.
    pub fn complaint(self, held: bool) -> Result<(), PassError> {
        match self.complaint {
            Some(complaint) if !held => Err(complaint),
            _ => Ok(()),
        }
    }
}

enum Answer {
    NotAsked,
    Unchanged,
    SameAsHeld,
    Document(Meta, Vec<u8>),
    Rejected(String),
    Failed(String),
}

impl Pass<'_> {
    /// Fetches and judges.
    pub(super) async fn documents(&mut self, view: &View) -> Result<Documents, PassError> {
        let alone = self.options.asking == Asking::SourceAlone;
        let regions = instance::regions(self.config, view.instance.as_ref());
        let selector = Selector {
            services: self.config.select.services.clone(),
            regions: regions.clone().unwrap_or_default(),
            families: self.config.select.families.clone(),
        };
        let path = self.store.path_of(Slot::LastKnownGood);
        let mut memory = self.memory.take();
        // Before it is read: what is put there meanwhile must not pass for it.
        let file = memory.as_ref().and_then(|_| FileId::of(&path));
        let recalled = memory
            .as_ref()
            .filter(|_| self.asks_nobody() && self.holds_nothing())
            .and_then(|memory| memory.recall(file.as_ref(), &selector));
        let last_good = if alone || recalled.is_some() {
            Err(ReadError::Absent { path })
        } else {
            self.store.read(Slot::LastKnownGood)
        };
        if let Err(error) = &last_good
            && self.may_look_only(error)
        {
            self.report.notes.push(error.to_string());
        }
        let (held, held_unreadable) = if alone {
            (None, false)
        } else {
            self.read_held()
        };
        let (answer, revalidated) = self
            .ask_source(last_good.as_ref().ok(), held.as_ref())
            .await;
        self.report.end_stage("source");
        let (state_before, state_unreadable) = match alone {
            true => (GuardState::default(), false),
            false => self.guard_state()?,
        };
        let state = match crate::clock::now() {
            Some(now) => state_before.rebase(&now),
            None => state_before.clone(),
        };

        let parsed = match &answer {
            Answer::Document(_, bytes) => Some(Document::parse(bytes)),
            _ => None,
        };
        let fetch = match (&answer, &parsed) {
            (Answer::Document(..), Some(Ok(document))) => Fetch::Document(document),
            (Answer::Document(..), Some(Err(error))) => Fetch::Rejected(error.to_string()),
            (Answer::Document(..), None) => Fetch::Failed("no document".to_owned()),
            (Answer::NotAsked, _) => Fetch::NotAsked,
            (Answer::Unchanged, _) => Fetch::Unchanged,
            (Answer::SameAsHeld, _) => Fetch::SameAsHeld,
            (Answer::Rejected(why), _) => Fetch::Rejected(why.clone()),
            (Answer::Failed(why), _) => Fetch::Failed(why.clone()),
        };
        let last_parsed = last_good
            .as_ref()
            .ok()
            .map(|stored| Document::parse(stored.body()));
        let selected = match (&memory, &last_parsed) {
            (Some(_), Some(Ok(document))) => Some(select_lenient(document, &selector)),
            _ => None,
        };
        let recalled = recalled.map(Remembered::as_last_good);
        let last = recalled.unwrap_or_else(|| match (&last_good, &last_parsed) {
            (_, Some(Ok(document))) => match &selected {
                Some((selection, bad)) => LastGood::Selected {
                    document,
                    selection,
                    bad,
                },
                None => LastGood::Document(document),
            },
            (_, Some(Err(error))) => LastGood::Unreadable(error.to_string()),
            (Err(error), _) if error.is_absent() || self.may_look_only(error) => LastGood::Absent,
            (Err(error), _) => LastGood::Unreadable(error.to_string()),
            (Ok(_), None) => LastGood::Absent,
        });
        let held_parsed = held
            .as_ref()
            .and_then(|stored| Document::parse(stored.body()).ok());

        let kernel_prefixes = match alone {
            true => Default::default(),
            false => view.kernel_prefixes(),
        };
        let mut judgement = judge(&Inputs {
            fetch,
            held: held_parsed.as_ref(),
            last_good: last,
            state: &state,
            state_unreadable: state_unreadable || held_unreadable,
            now: i64::try_from(super::now()).unwrap_or(i64::MAX),
            config: &self.config.guard,
            selector: &selector,
            include: &self.config.select.include,
            exclude: &self.config.select.exclude,
            environment: &environment(view),
            accept: match (&parsed, alone) {
                // Whoever asks about this very document is told what it says.
                (Some(Ok(document)), true) => Some(document.sync_token),
                _ => self.options.accept,
            },
            kernel_prefixes: &kernel_prefixes,
        })
        .map_err(|error| match error {
            // Nobody gave `--accept`.
            AcceptError::Unusable { reason, .. } if alone => PassError::NoDocument(reason),
            error => error.into(),
        })?;
        let complaint = self.complaint(view, &judgement, &answer);
        if regions.is_none() {
            // An unknown region selects nothing, which must not pass for an empty selection.
            judgement.nothing_in_force = true;
            judgement.decision = Decision::Keep;
            judgement.held = false;
            judgement.state = state.clone();
        }
        let known_region = regions.is_some();
        let sync_token = match &parsed {
            Some(Ok(document)) => Some(document.sync_token),
            _ => None,
        };
        self.report.fetch = fate(&answer, &judgement);
        if let (Some(memory), Some(file), Some(selected), Some(Ok(document))) =
            (&mut memory, file, selected, &last_parsed)
        {
            memory.keep(file, selector, document, selected);
        }
        let confirmed = matches!(self.report.fetch, Fate::Unchanged | Fate::Changed);
        drop((parsed, last_parsed, held_parsed));
        self.report.end_stage("guard");
        Ok(Documents {
            state_before,
            fetched: match answer {
                Answer::Document(meta, bytes) if known_region => {
                    Some((Meta { sync_token, ..meta }, bytes))
                }
                _ => None,
            },
            held: held.filter(|_| known_region),
            revalidated,
            last_good: last_good.ok(),
            complaint,
            confirmed,
            judgement,
        })
    }

    /// Whether this pass goes by what is at hand.
    fn asks_nobody(&self) -> bool {
        let gathered = self.gathered.as_ref();
        self.options.asking == Asking::Nobody
            || gathered.is_some_and(|gathered| gathered.source.is_none())
    }

    /// Whether there is no held candidate, not even one that can't be read.
    fn holds_nothing(&self) -> bool {
        let held = self.store.path_of(Slot::Held);
        std::fs::symlink_metadata(held)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    fn complaint(&self, view: &View, judgement: &Judgement, answer: &Answer) -> Option<PassError> {
        if let Some(error) = &view.instance_error {
            return Some(PassError::NoRegion(error.to_string()));
        }
        if !judgement.nothing_in_force {
            return None;
        }
        let reason = judgement
            .verdicts
            .iter()
            .find(|verdict| verdict.level == Level::Reject)
            .map(|verdict| verdict.message.clone())
            .or_else(|| match answer {
                Answer::Failed(why) | Answer::Rejected(why) => Some(why.clone()),
                _ => None,
            });
        Some(PassError::NoDocument(reason.unwrap_or_else(|| {
            match answer {
                Answer::NotAsked => "no source has been asked yet",
                _ => "none was accepted",
            }
            .to_owned()
        })))
    }

    fn guard_state(&mut self) -> Result<(GuardState, bool), PassError> {
        match self.store.read_json(StateFile::Guard) {
            Ok(state) => Ok((state, false)),
            Err(error) if error.is_absent() => Ok((GuardState::default(), false)),
            Err(error) if self.may_look_only(&error) => Ok((GuardState::default(), false)),
            Err(error) if error.is_damaged() => {
                self.report.notes.push(error.to_string());
                Ok((GuardState::default(), true))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The held candidate, and whether there is one that can't be read: what it added is in
    /// force and must not go for want of the file.
    fn read_held(&mut self) -> (Option<Stored>, bool) {
        match self.store.read(Slot::Held) {
            Ok(stored) => (Some(stored), false),
            Err(error) if error.is_absent() => (None, false),
            Err(error) => {
                self.report.notes.push(error.to_string());
                (None, !self.may_look_only(&error))
            }
        }
    }

    /// Asks the source, conditionally on the newest document at hand.
    async fn ask_source(
        &mut self,
        last_good: Option<&Stored>,
        held: Option<&Stored>,
    ) -> (Answer, Option<Meta>) {
        if self.options.asking == Asking::Nobody {
            return (Answer::NotAsked, None);
        }
        let at_hand = held.or(last_good);
        let validators = at_hand.and_then(|stored| stored.meta().validators.as_ref());
        let fetched = match &mut self.gathered {
            None => {
                let notes = &mut self.report.notes;
                fetch_path::fetch_document(self.config, self.role, &Asker::This, validators, notes)
                    .await
            }
            Some(gathered) => {
                self.report.notes.append(&mut gathered.notes);
                match gathered.source.take() {
                    None => return (Answer::NotAsked, None),
                    // Another pass has put another document there since: this says nothing of it.
                    Some(answer)
                        if matches!(answer.fetched, Ok(Fetched::NotModified { .. }))
                            && answer.validators.as_ref() != validators =>
                    {
                        return (Answer::NotAsked, None);
                    }
                    Some(answer) => answer.fetched,
                }
            }
        };
        let (bytes, url, validators) = match fetched {
            Err(error) if error.is_answer() => return (Answer::Rejected(error.to_string()), None),
            Err(error) => return (Answer::Failed(error.to_string()), None),
            Ok(Fetched::NotModified { .. }) if held.is_some() => return (Answer::SameAsHeld, None),
            Ok(Fetched::NotModified { .. }) => return (Answer::Unchanged, None),
            Ok(Fetched::Document {
                bytes,
                url,
                validators,
            }) => (bytes, url, validators),
        };
        let meta = Meta {
            url,
            validators,
            fetched_at: super::now(),
            sync_token: None,
        };
        if held.is_some_and(|stored| stored.body() == bytes) {
            return (Answer::SameAsHeld, None);
        }
        if let Some(stored) = last_good.filter(|stored| stored.body() == bytes) {
            let other = stored.meta().validators != meta.validators;
            return (Answer::Unchanged, other.then_some(meta));
        }
        (Answer::Document(meta, bytes), None)
    }
}

/// What came of asking, the judgement included.
fn fate(answer: &Answer, judgement: &Judgement) -> Fate {
    match (answer, judgement.decision) {
        (Answer::NotAsked, _) => Fate::NotAsked,
        (Answer::Failed(why), _) => Fate::Failed(why.clone()),
        (Answer::Rejected(why), _) => Fate::Rejected(why.clone()),
        (Answer::Unchanged, _) => Fate::Unchanged,
        (_, Decision::Accept(_)) => Fate::Changed,
        (_, Decision::HoldAll(_) | Decision::HoldWithdrawals(_)) => Fate::Held,
        (Answer::Document(..) | Answer::SameAsHeld, Decision::Keep) => {
            let rejected = judgement
                .verdicts
                .iter()
                .find(|verdict| verdict.level == Level::Reject);
            Fate::Rejected(rejected.map_or_else(
                || "the guard keeps the last known good".to_owned(),
                |verdict| verdict.message.clone(),
            ))
        }
    }
}

/// What no document may take from us.
fn environment(view: &View) -> Environment {
    let facts = &view.facts;
    let mut gateways: Vec<IpAddr> = Family::ALL
        .into_iter()
        .flat_map(|family| facts.defaults(family))
        .filter_map(|route| route.gateway)
        .collect();
    gateways.extend(view.configured_gateways.iter().copied());
    gateways.sort();
    gateways.dedup();
    Environment {
        vpc_cidrs: view.vpc_cidrs.clone(),
        own_addresses: facts.addresses.iter().map(|own| own.net.addr()).collect(),
        gateways,
        name_servers: facts.name_servers.clone(),
        metadata: METADATA
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
    }
}

/// The gateways that the settings name.
pub(super) fn configured_gateways(config: &crate::config::Config) -> Vec<IpAddr> {
    let mut gateways = config.egress.gateways.clone();
    for family in Family::ALL {
        if let AutoOr::Set(gateway) = config.bypass.gateway.get(family) {
            gateways.push(*gateway);
        }
    }
    gateways
}
