//! The list of sources: one after the other until one has a usable document.
//!
//! An answer alone is not enough. A proxy answers with a page, a mirror that has stopped answers
//! with an old document, and a damaged copy answers with rows that the guard rejects. The next
//! source of the list may know better.

use super::Job;
use super::fetch_path::{Means, fetch_document};
use super::memory::Silences;
use super::stored::ReadAhead;
use crate::clock;
use crate::guard::{figures, refusal};
use crate::notes::Notes;
use crate::ranges::{Document, Selector};
use crate::source::{self, Failure, Fetched, SourceError, SourceFailure, Validators, redacted};
use crate::types::SyncToken;

/// A document of this age, in seconds, may come from a mirror that has stopped: the next sources
/// are asked too, and the newest document wins. From 2017 to 2023 Amazon left 16 days between two
/// documents at most, but for one pause of 54 days, and rarely more than a week.
const PERHAPS_STOPPED: u64 = 7 * 86_400;

/// The longest obeyed silence of a server, in seconds.
const LONGEST_SILENCE: u64 = source::LONGEST_SILENCE.as_secs();

#[derive(Debug)]
pub(super) struct SourceAnswer {
    /// The validators of the request. "Not modified" refers to the document with the same ones.
    pub validators: Option<Validators>,
    pub fetched: Result<Fetched, SourceError>,
}

/// The sources that asked for silence.
#[derive(Debug, Default)]
pub(super) struct SilencesSeen {
    /// As stored.
    pub before: Silences,
    pub now: Silences,
}

impl SilencesSeen {
    /// The silences on disk, and those that the disk has refused.
    pub fn with(&self, kept: Option<&Silences>) -> Silences {
        let mut all = self.before.clone();
        for (url, until) in kept.into_iter().flatten() {
            let latest = all.entry(url.clone()).or_default();
            *latest = (*latest).max(*until);
        }
        all
    }
}

/// One look at the list of sources.
pub(super) struct Sources<'s> {
    pub job: Job<'s>,
    pub means: Means<'s>,
    pub selector: &'s Selector,
    pub read_ahead: &'s ReadAhead,
    /// From the state dir.
    pub silences: Silences,
}

/// The results of the sources so far.
#[derive(Default)]
struct Found {
    failures: Vec<SourceFailure>,
    /// The usable answer with the highest token.
    best: Option<(SyncToken, Fetched)>,
    /// The newest of the documents that the guard would reject. With nothing better, the guard
    /// receives the document and names the reason.
    refused: Option<(SyncToken, Fetched)>,
}

impl Sources<'_> {
    /// Asks the sources in order. Returns the answer, the silences now in force, and notes.
    pub async fn ask(mut self) -> (SourceAnswer, Silences, Notes) {
        let (config, accept) = (self.job.config, self.job.options.accept);
        let now = clock::unix_seconds();
        self.silences
            .retain(|_, until| (now..=now + LONGEST_SILENCE).contains(until));
        let validators = self.read_ahead.validators();
        let mut notes = Notes::default();
        let mut found = Found::default();
        for configured in &config.source.urls {
            let url = redacted(configured);
            if let Some(until) = self.silences.get(&url) {
                let until = figures::time(i64::try_from(*until).unwrap_or(i64::MAX));
                found.failures.push(failure(url, Failure::Quiet { until }));
                continue;
            }
            let one = std::slice::from_ref(configured);
            let (answer, mut more) =
                fetch_document(config, self.job.role, self.means, one, validators.as_ref()).await;
            notes.append(&mut more);
            match answer {
                Ok(fetched) => self.take(url, fetched, now, &mut found),
                Err(SourceError::NoSource) => {}
                Err(SourceError::Failed(failures)) => {
                    self.obey(&url, &failures, now);
                    found.failures.extend(failures);
                }
            }
            let done = found.best.as_ref().is_some_and(|(token, _)| match accept {
                Some(asked) => *token == asked,
                None => token.0.saturating_add(PERHAPS_STOPPED) > now,
            });
            if done {
                break;
            }
        }
        let answer = SourceAnswer {
            validators,
            fetched: found.into_answer(&mut notes),
        };
        (answer, self.silences, notes)
    }

    /// Sorts an answer into the usable and the refused ones.
    fn take(&self, url: String, fetched: Fetched, now: u64, found: &mut Found) {
        let Fetched::Document {
            bytes, redirected, ..
        } = &fetched
        else {
            found.offer(self.read_ahead.newest_token(), fetched);
            return;
        };
        let unusable = |reason: String| SourceFailure {
            redirected: redirected.clone(),
            ..failure(url, Failure::Unusable(reason))
        };
        if let Some(stored) = self.read_ahead.find(bytes) {
            found.offer(stored.meta().sync_token, fetched);
            return;
        }
        let document = match Document::parse(bytes) {
            Ok(document) => document,
            Err(error) => {
                found.failures.push(unusable(error.to_string()));
                return;
            }
        };
        let token = document.sync_token;
        // The rows in force matter to a document with the same token, the token to an older one.
        let known = self.read_ahead.last_good_token();
        let in_force = self.read_ahead.last_good();
        let in_force = in_force.filter(|_| known.is_none_or(|known| token <= known));
        let in_force = in_force.and_then(|body| Document::parse(body).ok());
        let accept = self.job.options.accept;
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        match refusal(&document, in_force.as_ref(), self.selector, accept, now) {
            None => found.offer(Some(token), fetched),
            Some(reason) => {
                found.failures.push(unusable(reason));
                let newer = |(known, _): &(SyncToken, Fetched)| *known < token;
                if found.refused.as_ref().is_none_or(newer) {
                    found.refused = Some((token, fetched));
                }
            }
        }
    }

    /// Remembers how long a server wants no further request.
    fn obey(&mut self, url: &str, failures: &[SourceFailure], now: u64) {
        for failure in failures {
            if let Failure::Unavailable {
                retry_after: Some(after),
                ..
            } = &failure.cause
            {
                let until = now + after.as_secs().min(LONGEST_SILENCE);
                self.silences.insert(url.to_owned(), until);
            }
        }
    }
}

impl Found {
    fn offer(&mut self, token: Option<SyncToken>, fetched: Fetched) {
        let token = token.unwrap_or(SyncToken(0));
        if self.best.as_ref().is_none_or(|(known, _)| *known < token) {
            self.best = Some((token, fetched));
        }
    }

    fn into_answer(self, notes: &mut Notes) -> Result<Fetched, SourceError> {
        let (taken, is_usable) = match (self.best, self.refused) {
            (Some((_, best)), _) => (best, true),
            (None, Some((_, refused))) => (refused, false),
            (None, None) => return Err(SourceError::of(self.failures)),
        };
        let (Fetched::NotModified { url } | Fetched::Document { url, .. }) = &taken;
        for failure in &self.failures {
            if is_usable {
                notes.push(format!("source: {failure}; {url} is used"));
            } else if failure.url != *url {
                notes.push(format!("source: {failure}"));
            }
        }
        Ok(taken)
    }
}

fn failure(url: String, cause: Failure) -> SourceFailure {
    SourceFailure {
        url,
        proxy: None,
        redirected: None,
        tries: 1,
        cause,
    }
}
