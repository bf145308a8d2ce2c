//! The agent's memory of the last known good between passes. Reading, checking and parsing the
//! megabytes of a document takes longer than the rest of a drift pass, and only the selected rows
//! matter.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::drop_readings::DropReadings;
use crate::guard::{GuardState, LastGood};
use crate::ranges::{BadRow, Document, Selection, Selector};
use crate::state::store::Stored;

/// Sources that asked for silence (`Retry-After`), without credentials, each with the end of the
/// silence in seconds since the epoch.
pub(super) type Silences = BTreeMap<String, u64>;

/// Results of earlier passes of this process. A pass with an answer of the source reads the files
/// all the same.
#[derive(Debug, Default)]
pub struct Memory {
    document: Option<Remembered>,
    unstored: Option<Unstored>,
    /// The sources that asked for silence when a source was asked last.
    pub(super) silences: Silences,
    /// The last failure of the metadata service. A pass without a question repeats the note of
    /// the pass before.
    pub(super) metadata_failure: Option<String>,
    /// The addresses that flows could be translated to when the flows were listed last, see
    /// [`super::flows::end_dead`].
    pub(super) kept: Option<BTreeSet<IpAddr>>,
    pub(super) dropped: DropReadings,
}

#[derive(Debug)]
pub(super) struct Remembered {
    file: FileId,
    selector: Selector,
    /// Without rows, which the guard doesn't need here.
    document: Document<'static>,
    selection: Selection,
    bad: Vec<BadRow>,
}

/// A judged document that the state dir has refused. Without this copy the prefixes of the document
/// would be unknown from the next pass to the next fetch.
#[derive(Debug, Clone)]
pub(super) struct Unstored {
    /// Identity of the last known good's file on disk at the judgement.
    pub file: Option<FileId>,
    /// `None` for the document on disk.
    pub last_good: Option<Stored>,
    pub held: Option<Stored>,
    /// `None` if the state of the guard on disk was unreadable.
    pub guard: Option<GuardState>,
}

/// Identity and version of a file. State files are replaced and never written to, and no program
/// can set the change time of a file, so an equal value means equal content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileId {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl FileId {
    /// The identity of the file at `path`; `None` where it cannot be read.
    pub fn of(path: &Path) -> Option<FileId> {
        let meta = std::fs::metadata(path).ok()?;
        Some(FileId {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Memory {
    /// Makes the next pass read the documents again.
    pub fn forget(&mut self) {
        self.document = None;
    }

    /// Keeps a document that is not on disk; `None` once the documents are on disk.
    pub(super) fn keep_unstored(&mut self, unstored: Option<Unstored>) {
        self.unstored = unstored;
    }

    /// The document that the state dir has refused. A file written since replaces the copy: another
    /// process has stored a document.
    pub(super) fn unstored(&self, file: Option<&FileId>) -> Option<&Unstored> {
        let unstored = self.unstored.as_ref()?;
        let replaced = file.is_some() && file != unstored.file.as_ref();
        (!replaced).then_some(unstored)
    }

    /// The selection of this very file by this very selector.
    pub(super) fn recall(&self, file: Option<&FileId>, selector: &Selector) -> Option<&Remembered> {
        self.document
            .as_ref()
            .filter(|known| Some(&known.file) == file && known.selector == *selector)
    }

    /// Keeps the selection of a file. `file` was taken before the file was read.
    pub(super) fn keep(
        &mut self,
        file: FileId,
        selector: Selector,
        document: &Document<'_>,
        (selection, bad): (Selection, Vec<BadRow>),
    ) {
        self.document = Some(Remembered {
            file,
            selector,
            document: Document {
                sync_token: document.sync_token,
                create_date: Cow::Owned(document.create_date.clone().into_owned()),
                rows: Vec::new(),
            },
            selection,
            bad,
        });
    }
}

impl Remembered {
    /// The document as an input of the guard.
    pub fn as_last_good(&self) -> LastGood<'_> {
        LastGood::Selected {
            document: &self.document,
            selection: &self.selection,
            bad: &self.bad,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;
    use crate::guard::{Environment, Fetch, GuardInputs, GuardState, judge};
    use crate::ranges::select_lenient;
    use crate::types::{Family, PerFamily, Region, Service};

    const BYTES: &[u8] = br#"{"syncToken": "1700000000", "createDate": "2023-11-14-22-13-20",
        "prefixes": [
            {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "S3"},
            {"ip_prefix": "3.5.0.1/19", "region": "us-east-1", "service": "S3"},
            {"ip_prefix": "10.9.0.0/16", "region": "us-east-1", "service": "S3"},
            {"ip_prefix": "52.0.0.0/16", "region": "eu-west-1", "service": "EC2"}],
        "ipv6_prefixes": [
            {"ipv6_prefix": "2600:1ff0:8000::/39", "region": "us-east-1", "service": "S3"}]}"#;

    fn selector(services: &[&str]) -> Selector {
        Selector {
            services: services
                .iter()
                .map(|name| Service((*name).to_owned()))
                .collect(),
            regions: vec![Region("us-east-1".to_owned())],
            families: BTreeSet::from(Family::ALL),
        }
    }

    fn file(number: u64) -> FileId {
        FileId {
            place: (1, number),
            size: 100,
            changed: (5, 6),
        }
    }

    fn remembering(selector: &Selector) -> Memory {
        let document = Document::parse(BYTES).unwrap();
        let mut memory = Memory::default();
        let selected = select_lenient(&document, selector);
        memory.keep(file(1), selector.clone(), &document, selected);
        memory
    }

    #[test]
    fn guard_judges_remembered_and_read_document_alike() {
        // A service of another region, and a mistyped one: the guard hints at both.
        let selector = selector(&["S3", "EC2", "S33"]);
        let document = Document::parse(BYTES).unwrap();
        let memory = remembering(&selector);
        let judged = |last_good| {
            judge(&GuardInputs {
                source: None,
                fetch: Fetch::NotAsked,
                held: None,
                last_good,
                state: &GuardState::default(),
                state_unreadable: false,
                now: 1_700_000_100,
                config: &Config::default().guard,
                selector: &selector,
                include: &[],
                exclude: &[],
                environment: &Environment::default(),
                accept: None,
                kernel_prefixes: &PerFamily::default(),
            })
            .unwrap()
        };
        let read = judged(LastGood::Document(&document));
        assert!(read.verdicts.len() > 3, "{read:#?}");
        let known = memory.recall(Some(&file(1)), &selector).unwrap();
        assert_eq!(judged(known.as_last_good()), read);
    }

    #[test]
    fn other_file_or_selection_is_not_recalled() {
        let known = selector(&["S3"]);
        let mut memory = remembering(&known);
        assert!(memory.recall(Some(&file(1)), &known).is_some());
        assert!(memory.recall(Some(&file(2)), &known).is_none());
        assert!(memory.recall(None, &known).is_none());
        assert!(memory.recall(Some(&file(1)), &selector(&["EC2"])).is_none());
        memory.forget();
        assert!(memory.recall(Some(&file(1)), &known).is_none());
    }

    #[test]
    fn unstored_document_serves_until_another_process_stores_one() {
        let mut memory = Memory::default();
        memory.keep_unstored(Some(Unstored {
            file: Some(file(1)),
            last_good: None,
            held: None,
            guard: None,
        }));
        assert!(memory.unstored(Some(&file(1))).is_some());
        // The disk with the file is gone.
        assert!(memory.unstored(None).is_some());
        assert!(memory.unstored(Some(&file(2))).is_none());
        memory.keep_unstored(None);
        assert!(memory.unstored(Some(&file(1))).is_none());
    }

    #[test]
    fn replaced_file_has_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(FileId::of(&path), None);
        std::fs::write(&path, "one").unwrap();
        let before = FileId::of(&path).unwrap();
        assert_eq!(FileId::of(&path).unwrap(), before);
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(FileId::of(&path).unwrap(), before);
    }
}
