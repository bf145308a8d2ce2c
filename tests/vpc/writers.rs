//! Five writers with documents of different ages, in random orders of their calls, with deaths at any
//! call and readings that lag behind.
//!
//! # Properties, checked after each call
//!
//! - A version of a list has each prefix of the version before that its writer's document has, and no
//!   prefix that neither of the two has.
//! - No writer of an older document adds a version after one of a writer with a newer document.
//! - Once a document is in force, the table leads each prefix to the target that this document and
//!   all newer ones have.
//!
//! At the end each writer has a pass alone: one list is left, with the entries of the newest document.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloud::{Cloud, Way};
use ipnet::IpNet;
use proptest::prelude::*;
use trailblazer::reconcile::Outcome;
use trailblazer::vpc::pass::PassMemory;
use trailblazer::vpc::report::VpcReport;

use crate::cases::{Case, Death, WRITERS, case, selection};
use crate::schedule::{Paced, Stop};
use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const NAME: &str = "trailblazer-s3-ipv4";

/// A document that is in force once the passes end that may have read the VPC before.
struct Settling {
    document: usize,
    others: BTreeSet<usize>,
}

/// The scene, with the knowledge that the properties need.
struct Scene {
    cloud: Cloud,
    writers: Vec<Writer>,
    selections: Vec<BTreeSet<IpNet>>,
    passes: Vec<Option<Paced>>,
    memories: Vec<PassMemory>,
    /// The passes that each writer began.
    begun: Vec<usize>,
    /// The writer of the change that a list took last, and the writer of its newest version.
    changers: BTreeMap<String, usize>,
    authors: BTreeMap<String, usize>,
    /// The versions that are checked already.
    seen: BTreeMap<String, usize>,
    /// The newest document that is in force or was.
    in_force: Option<usize>,
    settling: Vec<Settling>,
    /// The calls that are looked at already.
    calls: usize,
    reports: Vec<VpcReport>,
}

/// A writer whose waits suit the scene.
fn writer(cloud: &Cloud, lag: usize) -> Writer {
    let mut writer = Writer::new(cloud, "quota = 1000\n");
    writer.memory.waits.first_look = Duration::ZERO;
    writer.memory.waits.longest_look = Duration::ZERO;
    writer.memory.waits.read_again = Duration::ZERO;
    writer.memory.waits.visible_after = match lag {
        0 => Duration::ZERO,
        _ => Duration::from_millis(50),
    };
    writer.memory.waits.known_after = writer.memory.waits.visible_after;
    writer
}

/// Gives a writer the memory of a document, in another VPC. A writer without any memory keeps the
/// entries that it finds.
async fn remember(writer: &mut Writer, prefixes: &[IpNet]) {
    let elsewhere = std::mem::replace(&mut writer.cloud, vpc());
    writer.publish(&document_of(TOKEN - 1, prefixes));
    assert_eq!(writer.pass().await.outcome, Outcome::Changed);
    let left = writer.directory.path().join("state/vpc.json");
    std::fs::remove_file(left).unwrap();
    writer.cloud = elsewhere;
    writer.memory.entries = Default::default();
}

impl Scene {
    async fn new(case: &Case) -> Scene {
        let cloud = vpc();
        cloud.configure(|settings| settings.routes_per_table = 1000);
        let mut seen = BTreeMap::new();
        if let Some(blocks) = case.before {
            let mut first = writer(&cloud, 0);
            let prefixes: Vec<IpNet> = selection(case, blocks).into_iter().collect();
            first.publish(&document_of(TOKEN, &prefixes));
            assert_eq!(first.pass().await.outcome, Outcome::Changed);
            let list = list(&cloud, "ipv4").unwrap();
            seen.insert(list.clone(), cloud.versions(&list).len());
        }
        cloud.configure(|settings| {
            settings.lag = case.lag;
            settings.progress_reads = case.progress_reads;
        });
        let blocks = case.documents.iter();
        let selections: Vec<_> = blocks.map(|it| selection(case, *it)).collect();
        let mut writers = Vec::new();
        for (index, prefixes) in selections.iter().enumerate() {
            let prefixes: Vec<IpNet> = prefixes.iter().copied().collect();
            let mut writer = writer(&cloud, case.lag);
            remember(&mut writer, &prefixes[..1]).await;
            writer.publish(&document_of(TOKEN + 1 + index as u64, &prefixes));
            writers.push(writer);
        }
        cloud.clear_calls();
        Scene {
            cloud,
            writers,
            selections,
            passes: (0..WRITERS).map(|_| None).collect(),
            memories: (0..WRITERS).map(|_| PassMemory::default()).collect(),
            begun: vec![0; WRITERS],
            changers: BTreeMap::new(),
            authors: BTreeMap::new(),
            seen,
            in_force: None,
            settling: Vec::new(),
            calls: 0,
            reports: Vec::new(),
        }
    }

    /// One call of a writer. False if the writer has nothing to do.
    async fn step(&mut self, index: usize, death: Death) -> Result<bool, String> {
        if self.passes[index].is_none() {
            if self.begun[index] == 2 {
                return Ok(false);
            }
            self.begun[index] += 1;
            let memory = std::mem::take(&mut self.memories[index]);
            let mut pass = Paced::new(&self.writers[index], &self.cloud, memory);
            if matches!(pass.go_on().await, Stop::End(..)) {
                return Err("the pass ended before a call".to_owned());
            }
            self.passes[index] = Some(pass);
        }
        let Some(mut pass) = self.passes[index].take() else {
            return Ok(false);
        };
        if death == Death::BeforeCall {
            drop(pass);
            self.left(index);
            return Ok(true);
        }
        let stop = pass.go_on().await;
        self.check_call(index)?;
        match stop {
            _ if death == Death::AfterCall => self.left(index),
            Stop::Call => self.passes[index] = Some(pass),
            Stop::End(report, memory) => {
                self.memories[index] = *memory;
                self.left(index);
                self.ended(index, &report);
                self.reports.push(*report);
            }
        }
        Ok(true)
    }

    /// A pass has ended or died.
    fn left(&mut self, index: usize) {
        for settling in &mut self.settling {
            settling.others.remove(&index);
        }
        self.promote();
    }

    fn ended(&mut self, index: usize, report: &VpcReport) {
        let is_good = matches!(report.outcome, Outcome::InSync | Outcome::Changed);
        if is_good {
            let others = (0..WRITERS).filter(|other| self.passes[*other].is_some());
            self.settling.push(Settling {
                document: index,
                others: others.collect(),
            });
            self.promote();
        }
    }

    /// Takes documents as in force whose older rivals have ended.
    fn promote(&mut self) {
        let effective = self.effective();
        let settling = std::mem::take(&mut self.settling);
        for settling in settling {
            if !settling.others.is_empty() {
                self.settling.push(settling);
            } else if effective == self.selections[settling.document] {
                self.in_force = self.in_force.max(Some(settling.document));
            }
        }
    }

    /// The prefixes that the table leads to the target.
    fn effective(&self) -> BTreeSet<IpNet> {
        let routes = self.cloud.routes(TABLE).into_iter();
        let lists = routes.filter(|(to, target)| to.starts_with("pl-") && target == IGW);
        lists
            .flat_map(|(list, _)| self.cloud.prefixes(&list))
            .collect()
    }

    fn check_call(&mut self, index: usize) -> Result<(), String> {
        let calls = self.cloud.calls();
        for call in calls.iter().skip(self.calls) {
            let of_entries = |(key, _): &(String, String)| {
                key.starts_with("AddEntry") || key.starts_with("RemoveEntry")
            };
            if call.action == "ModifyManagedPrefixList"
                && call.error.is_none()
                && call.parameters.iter().any(of_entries)
            {
                let list = call
                    .parameters
                    .iter()
                    .find(|(key, _)| key == "PrefixListId");
                self.changers.insert(list.unwrap().1.clone(), index);
            }
        }
        self.calls = calls.len();
        for list in self.cloud.lists_named(NAME) {
            self.check_versions(&list, index)?;
        }
        self.check_in_force()
    }

    fn check_versions(&mut self, list: &str, index: usize) -> Result<(), String> {
        let versions = self.cloud.versions(list);
        for place in *self.seen.get(list).unwrap_or(&0)..versions.len() {
            let now = &versions[place].prefixes;
            // The first version is the work of the call just taken; a change may have been in progress.
            let author = *self.changers.get(list).unwrap_or(&index);
            let wanted = &self.selections[author];
            let empty = BTreeSet::new();
            let before = place
                .checked_sub(1)
                .map_or(&empty, |it| &versions[it].prefixes);
            let kept: BTreeSet<IpNet> = before & wanted;
            let most: BTreeSet<IpNet> = before | wanted;
            if !kept.is_subset(now) || !now.is_subset(&most) {
                return Err(format!(
                    "version {} of {list} by writer {author}: lost {:?}, foreign {:?}",
                    place + 1,
                    &kept - now,
                    now - &most
                ));
            }
            let earlier = self.authors.insert(list.to_owned(), author);
            if let Some(newer) = earlier.filter(|earlier| *earlier > author) {
                return Err(format!(
                    "version {} of {list} by writer {author} after one of writer {newer}",
                    place + 1
                ));
            }
            if now == wanted && self.leads_to(list) {
                self.in_force = self.in_force.max(Some(author));
            }
        }
        self.seen.insert(list.to_owned(), versions.len());
        Ok(())
    }

    fn leads_to(&self, list: &str) -> bool {
        let routes = self.cloud.routes(TABLE);
        routes
            .iter()
            .any(|(to, target)| to == list && target == IGW)
    }

    fn check_in_force(&self) -> Result<(), String> {
        let Some(newest) = self.in_force else {
            return Ok(());
        };
        let mut required = self.selections[newest].clone();
        for newer in &self.selections[newest..] {
            required = &required & newer;
        }
        let lost = &required - &self.effective();
        if lost.is_empty() {
            return Ok(());
        }
        Err(format!(
            "after document {newest} was in force: lost {lost:?}"
        ))
    }

    /// Passes of single writers, without delays.
    async fn finish(&mut self) -> Result<(), String> {
        self.cloud.configure(|settings| {
            settings.lag = 0;
            settings.progress_reads = 0;
        });
        for round in 0..2 {
            for index in 0..WRITERS {
                self.begun[index] = 0;
                self.passes[index] = None;
                let before = self.cloud.writes();
                while self.step(index, Death::None).await? && self.passes[index].is_some() {}
                let report = self.reports.last().unwrap();
                if round == 0 {
                    continue;
                }
                let writes = self.cloud.writes() - before;
                let is_newest = index + 1 == WRITERS;
                let is_right = match report.outcome {
                    Outcome::InSync => true,
                    Outcome::Held => !is_newest,
                    _ => false,
                };
                if !is_right || writes > 0 {
                    return Err(format!("writer {index} alone: {writes} writes, {report:?}"));
                }
            }
        }
        let lists = self.cloud.lists_named(NAME);
        let newest = &self.selections[WRITERS - 1];
        let routes = self.cloud.routes(TABLE);
        let to_lists = routes.iter().filter(|(to, _)| to.starts_with("pl-"));
        if lists.len() != 1 || self.cloud.prefixes(&lists[0]) != *newest || to_lists.count() != 1 {
            let entries: Vec<_> = lists.iter().map(|list| self.cloud.prefixes(list)).collect();
            return Err(format!(
                "at the end: {lists:?} with {entries:?}, {routes:?}"
            ));
        }
        let first = newest.first().unwrap().addr();
        let way = self.cloud.target_of(TABLE, first);
        if way != Way::Target(IGW.to_owned()) {
            return Err(format!("at the end: {first} goes to {way:?}"));
        }
        self.mirrors_catch_up().await
    }

    /// Each writer gets the newest document, and finds it in force.
    async fn mirrors_catch_up(&mut self) -> Result<(), String> {
        let newest: Vec<IpNet> = self.selections[WRITERS - 1].iter().copied().collect();
        let writes = self.cloud.writes();
        for writer in &mut self.writers {
            writer.publish(&document_of(TOKEN + WRITERS as u64, &newest));
            let report = writer.pass().await;
            if report.outcome != Outcome::InSync || self.cloud.writes() != writes {
                return Err(format!("after the mirror caught up: {report:?}"));
            }
        }
        match self.cloud.violations() {
            violations if violations.is_empty() => Ok(()),
            violations => Err(format!("{violations:?}")),
        }
    }
}

async fn play(case: &Case) -> Result<(), String> {
    let mut scene = Scene::new(case).await;
    for turn in &case.turns {
        for call in 1..=turn.calls {
            let is_last = call == turn.calls;
            let death = if is_last { turn.death } else { Death::None };
            scene.step(turn.writer, death).await?;
        }
    }
    // The passes on their way go on in turn.
    while scene.passes.iter().any(Option::is_some) {
        for index in 0..WRITERS {
            if scene.passes[index].is_some() {
                scene.step(index, Death::None).await?;
            }
        }
    }
    scene.finish().await
}

/// How many cases the property is tried on; `PROPTEST_CASES` sets another number.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn five_writers_in_any_order_of_calls_never_go_back(case in case()) {
        let result = run(play(&case));
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}
