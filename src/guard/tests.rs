//! Each rule of the guard, with its figures: the documents and the host of all tests below.

mod bound_tests;
mod document_tests;
mod memory_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::config::GuardConfig;
use crate::ranges::{Selector, select};
use crate::types::{Family, PerFamily, Region, Service, SyncToken};

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

/// A row: prefix, region, service.
type RowText = (&'static str, &'static str, &'static str);

/// Four /24 and a /32 block of IPv6: small enough to count in the head.
const BASE: &[RowText] = &[
    ("3.5.0.0/24", "us-east-1", "S3"),
    ("3.5.2.0/24", "us-east-1", "S3"),
    ("3.5.4.0/24", "us-east-1", "S3"),
    ("3.5.6.0/24", "us-east-1", "S3"),
    ("52.218.0.0/17", "eu-west-1", "S3"),
    ("2600:1fa0:8000::/39", "us-east-1", "S3"),
];

fn text(token: u64, rows: &[RowText]) -> String {
    let list = |key: &str, six: bool| {
        let rows: Vec<String> = rows
            .iter()
            .filter(|(prefix, ..)| prefix.contains(':') == six)
            .map(|(prefix, region, service)| {
                format!(r#"{{"{key}": "{prefix}", "region": "{region}", "service": "{service}"}}"#)
            })
            .collect();
        rows.join(",")
    };
    format!(
        r#"{{"syncToken": "{token}", "createDate": "", "prefixes": [{}], "ipv6_prefixes": [{}]}}"#,
        list("ip_prefix", false),
        list("ipv6_prefix", true)
    )
}

/// Leaks the document, to keep the cases free of lifetimes.
fn document(token: u64, rows: &[RowText]) -> &'static Document<'static> {
    let text: &'static str = text(token, rows).leak();
    Box::leak(Box::new(Document::parse(text.as_bytes()).unwrap()))
}

fn without(rows: &[RowText], gone: &[&str]) -> Vec<RowText> {
    rows.iter()
        .copied()
        .filter(|(prefix, ..)| !gone.contains(prefix))
        .collect()
}

fn with(rows: &[RowText], more: &[RowText]) -> Vec<RowText> {
    [rows, more].concat()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A host over time: documents and state as stored by the caller of `judge`.
struct Host {
    config: GuardConfig,
    selector: Selector,
    include: Vec<IpNet>,
    exclude: Vec<IpNet>,
    environment: Environment,
    accept: Option<SyncToken>,
    kernel: PerFamily<Vec<IpNet>>,
    state: GuardState,
    state_unreadable: bool,
    last_good: LastGood<'static>,
    held: Option<&'static Document<'static>>,
    now: i64,
}

impl Host {
    /// With a document of token 1000 and the rows of `BASE` in force.
    fn new() -> Host {
        let mut host = Host::empty();
        host.last_good = LastGood::Document(document(1000, BASE));
        host
    }

    fn empty() -> Host {
        Host {
            config: GuardConfig {
                max_loss: 20.0,
                max_prefixes: 5000,
                accept_after: Duration::from_secs(86_400),
                hold_down: Duration::from_secs(86_400),
                ..GuardConfig::default()
            },
            selector: Selector {
                services: vec![Service::from("S3")],
                regions: vec![Region::from("us-east-1")],
                families: Family::ALL.into(),
            },
            include: Vec::new(),
            exclude: Vec::new(),
            environment: Environment::default(),
            accept: None,
            kernel: PerFamily::default(),
            state: GuardState::default(),
            state_unreadable: false,
            last_good: LastGood::Absent,
            held: None,
            now: NOW,
        }
    }

    fn judge(&self, fetch: Fetch<'static>) -> Result<Judgement, AcceptError> {
        judge(&GuardInputs {
            fetch,
            source: None,
            held: self.held,
            last_good: self.last_good.clone(),
            state: &self.state,
            state_unreadable: self.state_unreadable,
            now: self.now,
            config: &self.config,
            selector: &self.selector,
            include: &self.include,
            exclude: &self.exclude,
            environment: &self.environment,
            accept: self.accept,
            kernel_prefixes: &self.kernel,
        })
    }

    /// Judges, and updates documents and state like the caller; the state passes through JSON.
    fn pass(&mut self, fetch: Fetch<'static>) -> Judgement {
        let judgement = self.judge(fetch.clone()).unwrap();
        let which = |whose| match (whose, &fetch) {
            (Whose::Fetched, Fetch::Document(document)) => *document,
            (Whose::Held, _) => self.held.unwrap(),
            _ => panic!("{whose:?} without a document"),
        };
        match judgement.decision {
            Decision::Accept(whose) => {
                self.last_good = LastGood::Document(which(whose));
                self.held = None;
            }
            Decision::Keep => self.held = None,
            Decision::HoldAll(whose) | Decision::HoldWithdrawals(whose) => {
                self.held = Some(which(whose));
            }
        }
        let json = serde_json::to_string(&judgement.state).unwrap();
        self.state = serde_json::from_str(&json).unwrap();
        assert_eq!(self.state, judgement.state);
        self.state_unreadable = false;
        self.accept = None;
        judgement
    }
}

fn doc(token: u64, rows: &[RowText]) -> Fetch<'static> {
    Fetch::Document(document(token, rows))
}

fn v4(judgement: &Judgement) -> Vec<String> {
    let prefixes = &judgement.ranges.prefixes.ipv4;
    prefixes.iter().map(ToString::to_string).collect()
}

fn guards(judgement: &Judgement) -> Vec<(&'static str, Level)> {
    judgement
        .verdicts
        .iter()
        .map(|verdict| (verdict.guard, verdict.level))
        .collect()
}

#[track_caller]
fn says(judgement: &Judgement, guard: &str, words: &[&str]) {
    let found = judgement
        .verdicts
        .iter()
        .find(|verdict| verdict.guard == guard)
        .unwrap_or_else(|| panic!("no verdict of {guard}: {:#?}", judgement.verdicts));
    for words in words {
        assert!(found.message.contains(words), "{words:?} in {found}");
    }
}

const FOUR: [&str; 4] = ["3.5.0.0/24", "3.5.2.0/24", "3.5.4.0/24", "3.5.6.0/24"];
