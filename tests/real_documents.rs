//! Real documents of AWS, and the embedded sample, against an independent computation.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may say how it fails by failing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use trailblazer::config::GuardConfig;
use trailblazer::guard::{
    Decision, Environment, Fetch, GuardInputs, GuardState, Judgement, LastGood, Level, Whose, judge,
};
use trailblazer::ranges::{Document, DocumentError, PrefixSet, Selector, bad_rows_outside, select};
use trailblazer::types::{Family, PerFamily, Region, Service, SyncToken};

use lab::replay::{Replay, ReplayRow};

const REGIONS: [&str; 4] = ["us-east-1", "eu-west-1", "eu-central-1", "us-west-2"];

fn selector(service: &str, region: &str) -> Selector {
    Selector {
        services: vec![Service::from(service)],
        regions: vec![Region::from(region)],
        families: Family::ALL.into(),
    }
}

fn selected(document: &Document<'_>, selector: &Selector) -> BTreeSet<IpNet> {
    let selection = select(document, selector).expect("selected rows are good");
    selection.prefixes().map(|(_, prefix)| *prefix).collect()
}

/// Documents by file name.
fn documents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xz"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, lab::data::decompress(&path))
        })
        .collect()
}

fn named<'d>(documents: &'d BTreeMap<String, Vec<u8>>, part: &str) -> &'d [u8] {
    let mut found = documents.iter().filter(|(name, _)| name.contains(part));
    let (_, bytes) = found
        .next()
        .unwrap_or_else(|| panic!("no document {part} among the data"));
    assert!(found.next().is_none(), "{part} names two documents");
    bytes
}

/// A host that follows the guard's verdicts.
struct Host {
    config: GuardConfig,
    selector: Selector,
    last_good: Option<Vec<u8>>,
    held: Option<Vec<u8>>,
    state: GuardState,
}

impl Host {
    fn new(selector: Selector, config: GuardConfig) -> Host {
        Host {
            config,
            selector,
            last_good: None,
            held: None,
            state: GuardState::default(),
        }
    }

    /// Runs one pass at the time of the document's token.
    fn pass(&mut self, bytes: &[u8]) -> Judgement {
        let document = Document::parse(bytes).expect("a document");
        let last_good = self.last_good.clone();
        let last_good = last_good
            .as_ref()
            .map(|bytes| Document::parse(bytes).unwrap());
        let held = self.held.clone();
        let held = held.as_ref().map(|bytes| Document::parse(bytes).unwrap());
        let judgement = judge(&GuardInputs {
            fetch: Fetch::Document(&document),
            source: None,
            held: held.as_ref(),
            last_good: last_good
                .as_ref()
                .map_or(LastGood::Absent, LastGood::Document),
            state: &self.state,
            state_unreadable: false,
            now: document.sync_token.0.try_into().unwrap(),
            config: &self.config,
            selector: &self.selector,
            include: &[],
            exclude: &[],
            environment: &Environment::default(),
            accept: None,
            kernel_prefixes: &PerFamily::default(),
        })
        .expect("nothing is accepted by hand");
        match judgement.decision {
            Decision::Accept(Whose::Fetched) => {
                self.last_good = Some(bytes.to_vec());
                self.held = None;
            }
            Decision::HoldAll(Whose::Fetched) | Decision::HoldWithdrawals(Whose::Fetched) => {
                self.held = Some(bytes.to_vec());
            }
            Decision::Keep => self.held = None,
            other => panic!("{other:?} about a fetched document"),
        }
        self.state = judgement.state.clone();
        judgement
    }
}

/// Believes everything at once.
fn trusting() -> GuardConfig {
    GuardConfig {
        max_loss: 100.0,
        max_prefixes: 5000,
        accept_after: Duration::from_secs(86_400),
        hold_down: Duration::ZERO,
        ..GuardConfig::default()
    }
}

fn default_config() -> GuardConfig {
    GuardConfig {
        max_loss: 20.0,
        hold_down: Duration::from_secs(86_400),
        ..trusting()
    }
}

/// The destinations, in both families.
fn in_force(judgement: &Judgement) -> BTreeSet<IpNet> {
    let prefixes = &judgement.ranges.prefixes;
    prefixes
        .ipv4
        .iter()
        .chain(&prefixes.ipv6)
        .copied()
        .collect()
}

/// Aggregation by ipnet's own code.
fn aggregated(prefixes: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let prefixes: Vec<IpNet> = prefixes.iter().copied().collect();
    IpNet::aggregate(&prefixes).into_iter().collect()
}

#[test]
fn embedded_sample_parses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ip-ranges.json");
    let bytes = std::fs::read(path).unwrap();
    let document = Document::parse(&bytes).unwrap();
    assert_eq!(document.sync_token, SyncToken(1_795_021_512));
    assert_eq!(document.create_date, "2026-11-18-17-05-12");
    assert!((40..50).contains(&document.rows.len()));
    let nobody = selector("NONE", "none");
    assert_eq!(bad_rows_outside(&document, &nobody), []);
    let of = |region| selected(&document, &selector("S3", region));
    let nets = |texts: &[&str]| -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    assert_eq!(
        of("us-east-1"),
        nets(&[
            "3.5.0.0/19",
            "16.182.0.0/16",
            "52.216.0.0/15",
            "54.231.0.0/16",
            "2600:1fa0:8000::/39",
            "2600:1ff8:8000::/40",
        ])
    );
    assert!(of("eu-west-1").contains(&"52.218.0.0/17".parse().unwrap()));
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let distinct = |key: &str| -> BTreeSet<String> {
        ["prefixes", "ipv6_prefixes"]
            .iter()
            .flat_map(|list| value[*list].as_array().unwrap())
            .map(|row| row[key].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(distinct("service").len() >= 5);
    assert_eq!(distinct("region").len(), 4);
    // The default guard accepts the document unchanged.
    let judgement = Host::new(selector("S3", "us-east-1"), default_config()).pass(&bytes);
    assert_eq!(judgement.verdicts, []);
}

#[test]
fn every_document_is_read_or_rejected_for_the_right_reason() {
    let Some(dir) = lab::data::ip_ranges_dir() else {
        return;
    };
    let documents = documents(&dir);
    let index: Vec<Value> =
        serde_json::from_slice(&std::fs::read(dir.join("docs/INDEX.json")).unwrap()).unwrap();
    assert_eq!(documents.len(), index.len());
    for entry in index {
        let name = entry["file"].as_str().unwrap();
        let bytes = &documents[name];
        let parsed = Document::parse(bytes);
        if name.contains("malformed") {
            let error = parsed.unwrap_err();
            assert!(
                matches!(error, DocumentError::TrailingGarbage { line, .. } if line > 1000),
                "{name}: {error}"
            );
            continue;
        }
        let document = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(token) = entry["syncToken"].as_str() {
            assert_eq!(document.sync_token.to_string(), token, "{name}");
        }
        let value: Value = serde_json::from_slice(bytes).unwrap();
        let count = |list: &str| value[list].as_array().map_or(0, Vec::len);
        assert_eq!(
            document.rows.len(),
            count("prefixes") + count("ipv6_prefixes")
        );
        assert_eq!(bad_rows_outside(&document, &selector("", "")), [], "{name}");
        for service in ["S3", "AMAZON", "EC2", "DYNAMODB"] {
            for region in REGIONS {
                assert_eq!(
                    selected(&document, &selector(service, region)),
                    lab::data::independent(&value, service, region),
                    "{name}: {service} {region}"
                );
            }
        }
        // A file cut anywhere is never taken for a document.
        for end in (1..bytes.len().min(20_000)).step_by(997) {
            assert!(
                Document::parse(&bytes[..end]).is_err(),
                "{name} cut at {end}"
            );
        }
    }
}

#[test]
fn guard_judges_hard_documents_as_expected() {
    let Some(dir) = lab::data::ip_ranges_dir() else {
        return;
    };
    let documents = documents(&dir);
    let verdict = |judgement: &Judgement, guard: &str| {
        let found = judgement.verdicts.iter().find(|found| found.guard == guard);
        found
            .unwrap_or_else(|| panic!("no {guard}: {:#?}", judgement.verdicts))
            .clone()
    };

    // Reserved space is left out, the rest of the document kept.
    let bytes = named(&documents, "class-E");
    let mut host = Host::new(selector("EC2", "us-east-1"), trusting());
    let judgement = host.pass(bytes);
    assert_eq!(judgement.decision, Decision::Accept(Whose::Fetched));
    let found = verdict(&judgement, "prefix-reserved");
    assert!(found.message.contains("1 prefix left out"), "{found}");
    assert!(found.message.contains("252.0.0.0/10"), "{found}");
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let mut wanted = lab::data::independent(&value, "EC2", "us-east-1");
    assert!(wanted.remove(&"252.0.0.0/10".parse().unwrap()));
    assert_eq!(in_force(&judgement), aggregated(&wanted));

    // Unique-local space.
    let bytes = named(&documents, "ula-fc00");
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let mut rejected = 0;
    for region in REGIONS {
        let judgement = Host::new(selector("AMAZON", region), trusting()).pass(bytes);
        let local: PrefixSet = std::iter::once("fc00::/7".parse::<IpNet>().unwrap()).collect();
        let (bogons, wanted): (BTreeSet<IpNet>, BTreeSet<IpNet>) =
            lab::data::independent(&value, "AMAZON", region)
                .into_iter()
                .partition(|prefix| local.intersects(prefix));
        assert_eq!(in_force(&judgement), aggregated(&wanted), "{region}");
        if !bogons.is_empty() {
            verdict(&judgement, "prefix-unique-local");
        }
        rejected += bogons.len();
    }
    assert!(rejected > 0, "no bogon in any of the regions");

    // An older document returns.
    let mut host = Host::new(selector("S3", "us-east-1"), default_config());
    host.pass(named(&documents, "nbg-rolled-back"));
    let judgement = host.pass(named(&documents, "nbg-first-appears"));
    assert_eq!(judgement.decision, Decision::Keep);
    assert_eq!(verdict(&judgement, "older-token").level, Level::Reject);

    // Only a date differs, typed by hand: the token says the same.
    let bytes = named(&documents, "hand-edited");
    let mut host = Host::new(selector("S3", "us-east-1"), default_config());
    host.pass(bytes);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let judgement = host.pass(text.replace("-42-233\"", "-42-23\"").as_bytes());
    assert_eq!(
        (judgement.decision, judgement.verdicts),
        (Decision::Keep, vec![])
    );

    // All of a region's S3 is gone.
    let mut host = Host::new(selector("S3", "ap-southeast-5"), default_config());
    let mut replay = Replay::open(&dir);
    while replay.advance() && replay.sync_token() < 1_693_257_189 {
        if replay.sync_token() > 1_693_000_000 {
            host.pass(&replay.document());
        }
    }
    let judgement = host.pass(named(&documents, "ap-southeast-5"));
    assert!(matches!(judgement.decision, Decision::HoldAll(_)));
    assert_eq!(verdict(&judgement, "empty").level, Level::Hold);
    assert!(!in_force(&judgement).is_empty());
}

#[test]
fn replay_ends_with_the_last_published_document() {
    let Some(dir) = lab::data::ip_ranges_dir() else {
        return;
    };
    let documents = documents(&dir);
    let mut replay = Replay::open(&dir);
    while replay.advance() {}
    assert_eq!(replay.number(), 3023);
    let theirs = replay.document();
    let theirs = Document::parse(&theirs).unwrap();
    let ours = Document::parse(named(&documents, "last-2023")).unwrap();
    assert_eq!(theirs.sync_token, ours.sync_token);
    assert!(theirs.same_rows(&ours));
}

#[test]
fn history_of_the_selection_matches_an_independent_one() {
    let Some(dir) = lab::data::ip_ranges_dir() else {
        return;
    };
    for region in REGIONS {
        let wanted = |row: &ReplayRow| row.is("S3", region);
        let mut replay = Replay::open(&dir);
        let mut trusting = Host::new(selector("S3", region), trusting());
        let mut careful = Host::new(selector("S3", region), default_config());
        let (mut changes, mut held) = (0, BTreeSet::new());
        while replay.advance_to_change(wanted) {
            changes += 1;
            let place = format!("{region}, version {}", replay.create_date());
            let bytes = replay.document();
            let rows = replay.selected(wanted);

            // Everything believed: exactly the document's selection is in force.
            let judgement = trusting.pass(&bytes);
            assert_eq!(
                judgement.decision,
                Decision::Accept(Whose::Fetched),
                "{place}"
            );
            assert_eq!(in_force(&judgement), aggregated(&rows), "{place}");
            let count = |family| rows.iter().filter(|p| Family::of_net(p) == family).count();
            assert_eq!(
                judgement.ranges.selected,
                PerFamily::from_fn(count),
                "{place}"
            );

            // By default additions are in force at once, even during a hold.
            let judgement = careful.pass(&bytes);
            let set: PrefixSet = in_force(&judgement).iter().collect();
            assert!(rows.iter().all(|prefix| set.covers(prefix)), "{place}");
            for verdict in &judgement.verdicts {
                let withdrawal = ["loss", "hold-down"].contains(&verdict.guard);
                assert!(withdrawal, "{place}: {verdict}");
            }
            if judgement.held {
                held.insert(replay.sync_token());
            }
        }
        println!(
            "{region}: {changes} changes of the selection, {} held",
            held.len()
        );
        assert!((8..60).contains(&changes), "{region}: {changes} changes");
        assert_eq!(
            held.contains(&1_625_071_453),
            region == "eu-central-1",
            "{region}: of all four, eu-central-1 lost 46 % on 2021-06-30: {held:?}"
        );
    }
}
