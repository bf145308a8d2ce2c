//! Replay of the documents from 2017 to 2023: entries, changes between versions, and calls.

use std::collections::BTreeSet;

use cloud::Cloud;
use ipnet::IpNet;
use lab::data;
use lab::replay::{Replay, ReplayRow};
use trailblazer::config::parse;
use trailblazer::reconcile::Outcome;
use trailblazer::types::Region;
use trailblazer::vpc::report::VpcReport;
use trailblazer::vpc::session::resolved;

use crate::world::*;

type Wanted = fn(&ReplayRow) -> bool;

/// The selection of one replay: the settings, and the same rows for the oracle.
pub struct Selection {
    pub name: &'static str,
    pub region: &'static str,
    select: &'static str,
    pub wanted: Wanted,
}

pub const ONE_REGION: Selection = Selection {
    name: "S3 of one region",
    region: "us-east-1",
    select: "services = [\"S3\"]\nregions = [\"us-east-1\"]",
    wanted: |row| row.is("S3", "us-east-1"),
};

pub const ALL_REGIONS: Selection = Selection {
    name: "S3 of all regions",
    region: "us-east-1",
    select: "services = [\"S3\"]\nregions = [REGIONS]",
    wanted: |row| row.service() == "S3",
};

pub const AMAZON: Selection = Selection {
    name: "AMAZON of eu-west-1",
    region: "eu-west-1",
    select: "services = [\"AMAZON\"]\nregions = [\"eu-west-1\"]",
    wanted: |row| row.is("AMAZON", "eu-west-1"),
};

/// Limits of the guard that hold no document, and no hold-down: the entries equal the document.
pub const OPEN: &str = "hold_down = \"0s\"\nmax_loss = \"100%\"\nmax_gain = \"100000%\"\n";

/// The fewest prefixes of the same addresses: an oracle that knows nothing of the product's sets.
fn aggregate(prefixes: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut set = prefixes.clone();
    loop {
        let mut next: BTreeSet<IpNet> = BTreeSet::new();
        for prefix in &set {
            let mut wider = std::iter::successors(prefix.supernet(), IpNet::supernet);
            if wider.any(|net| set.contains(&net)) {
                continue;
            }
            let parent = prefix.supernet();
            let halves = parent.and_then(|net| net.subnets(prefix.prefix_len()).ok());
            let is_whole = halves.is_some_and(|mut halves| halves.all(|half| set.contains(&half)));
            next.insert(parent.filter(|_| is_whole).unwrap_or(*prefix));
        }
        if next == set {
            return set;
        }
        set = next;
    }
}

pub fn of_family(prefixes: &BTreeSet<IpNet>, ipv4: bool) -> BTreeSet<IpNet> {
    let wanted = prefixes
        .iter()
        .filter(|it| matches!(it, IpNet::V4(_)) == ipv4);
    wanted.copied().collect()
}

fn covered(prefix: &IpNet, by: &BTreeSet<IpNet>) -> bool {
    std::iter::successors(Some(*prefix), IpNet::supernet).any(|net| by.contains(&net))
}

/// The prefixes that lie in both sets.
pub fn common(one: &BTreeSet<IpNet>, other: &BTreeSet<IpNet>) -> Vec<IpNet> {
    let inside = |a: &BTreeSet<IpNet>, b: &BTreeSet<IpNet>| -> Vec<IpNet> {
        a.iter().filter(|it| covered(it, b)).copied().collect()
    };
    let mut both = inside(one, other);
    both.append(&mut inside(other, one));
    both
}

/// The regions that S3 ever had, in the syntax of the settings.
fn regions_of_storage() -> String {
    let mut regions = BTreeSet::new();
    let mut replay = Replay::open(&data::ip_ranges_dir().unwrap());
    while replay.advance_to_change(|row| row.service() == "S3") {
        let rows = replay.rows().filter(|row| row.service() == "S3");
        regions.extend(rows.map(|row| format!("{:?}", row.region())));
    }
    regions.into_iter().collect::<Vec<_>>().join(", ")
}

/// The prefixes of the selection in the present version, as the fewest of the same addresses.
pub fn wanted(replay: &Replay, selection: &Selection) -> BTreeSet<IpNet> {
    let mut selected = replay.selected(selection.wanted);
    // AWS published these once: a private prefix and a reserved one, which the product leaves out.
    let unusable = ["fc00::/7", "240.0.0.0/4"].map(|it| it.parse::<IpNet>().unwrap());
    selected.retain(|prefix| !unusable.iter().any(|net| net.contains(prefix)));
    aggregate(&selected)
}

/// Goes to the next version, or to the next one with another selection. False at the end.
pub fn advance(replay: &mut Replay, selection: &Selection, all: bool) -> bool {
    match all {
        true => replay.advance(),
        false => replay.advance_to_change(selection.wanted),
    }
}

/// A pass over the document of the replay, which must succeed. Returns also the place for messages.
#[track_caller]
pub fn pass_over(
    writer: &mut Writer,
    replay: &Replay,
    selection: &Selection,
) -> (VpcReport, String) {
    writer.publish(&String::from_utf8(replay.document()).unwrap());
    let report = run(writer.pass());
    let place = format!("{}, version {}", selection.name, replay.number());
    let is_good = matches!(report.outcome, Outcome::Changed | Outcome::InSync);
    assert!(is_good, "{place}: {report:?}");
    (report, place)
}

/// A VPC with room for every selection.
pub fn roomy(selection: &Selection) -> Cloud {
    let cloud = vpc();
    cloud.configure(|settings| {
        settings.region = selection.region.to_owned();
        settings.routes_per_table = 1000;
    });
    cloud
}

/// A writer with a selection and limits of the guard, and with `more` lines of `[vpc_plane]`.
pub fn writer(cloud: &Cloud, selection: &Selection, guard: &str, more: &str) -> Writer {
    let mut writer = Writer::new(cloud, "");
    let path = writer.directory.path().display();
    let text = format!(
        "role = \"vpc\"\n[source]\nurl = \"{path}/ip-ranges.json\"\nstate_dir = \"{path}/state\"\n\
         [select]\n{}\n[guard]\n{guard}[vpc_plane]\nregion = \"{}\"\ntables = [\"{TABLE}\"]\n\
         floor = 1\nquota = 1000\nheadroom = \"0%\"\ntarget.ipv4 = \"{IGW}\"\n\
         target.ipv6 = \"{EIGW}\"\n{more}",
        selection.select, selection.region
    );
    let text = if text.contains("REGIONS") {
        text.replace("REGIONS", &regions_of_storage())
    } else {
        text
    };
    let config = parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    writer.config = resolved(&config, &Region::from(selection.region));
    writer
}

/// The list of a family, and its entries after the last document.
#[derive(Default)]
struct Side {
    ipv4: bool,
    list: Option<String>,
    entries: BTreeSet<IpNet>,
    version: usize,
    changes: usize,
}

impl Side {
    /// Checks the versions since the last document: each has the prefixes common to both, and the last
    /// one equals the oracle.
    fn check(&mut self, cloud: &Cloud, wanted: &BTreeSet<IpNet>, place: &str) {
        let name = format!("trailblazer-s3-{}", if self.ipv4 { "ipv4" } else { "ipv6" });
        if self.list.is_none() {
            self.list = cloud.lists_named(&name).pop();
        }
        let Some(list) = &self.list else {
            assert!(wanted.is_empty(), "{place}: no list for {wanted:?}");
            return;
        };
        let versions = cloud.versions(list);
        let keep = common(&self.entries, wanted);
        let mut moved = 0;
        let mut before = self.entries.clone();
        for version in &versions[self.version..] {
            let lost: Vec<_> = keep
                .iter()
                .filter(|it| !covered(it, &version.prefixes))
                .collect();
            assert!(lost.is_empty(), "{place}: {lost:?} in {version:?}");
            moved += before.symmetric_difference(&version.prefixes).count();
            before.clone_from(&version.prefixes);
        }
        assert_eq!(cloud.prefixes(list), *wanted, "{place}");
        // Each change once: no prefix came and went.
        let least = self.entries.symmetric_difference(wanted).count();
        assert_eq!(moved, least, "{place}");
        self.changes += moved;
        self.version = versions.len();
        self.entries.clone_from(wanted);
    }
}

/// Plays the documents with another selection than the one before, or all of them.
fn replay(selection: &Selection, all: bool) {
    let Some(directory) = data::ip_ranges_dir() else {
        return;
    };
    let cloud = roomy(selection);
    let mut writer = writer(&cloud, selection, OPEN, "");
    let mut sides = [true, false].map(|ipv4| Side {
        ipv4,
        ..Side::default()
    });
    let mut replay = Replay::open(&directory);
    let mut documents = 0;
    while advance(&mut replay, selection, all) {
        let wanted = wanted(&replay, selection);
        if wanted.is_empty() {
            continue;
        }
        let (_, place) = pass_over(&mut writer, &replay, selection);
        for side in &mut sides {
            let wanted = of_family(&wanted, side.ipv4);
            // A document without any prefix of a family is held, by design.
            if !wanted.is_empty() {
                side.check(&cloud, &wanted, &place);
            }
        }
        cloud.clear_calls();
        documents += 1;
    }
    assert_eq!(cloud.violations(), Vec::<String>::new());
    let changes: usize = sides.iter().map(|side| side.changes).sum();
    println!(
        "{}: {documents} documents, {changes} entries changed",
        selection.name
    );
    assert!(documents > 10 && changes > documents / 50, "{documents}");
}

#[test]
fn each_change_of_one_regions_storage_reaches_the_list_and_nothing_else() {
    replay(&ONE_REGION, false);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_one_regions_storage_reaches_the_list_and_nothing_else() {
    replay(&ONE_REGION, true);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_all_storage_reaches_the_list_and_nothing_else() {
    replay(&ALL_REGIONS, true);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_one_regions_services_reaches_the_list_and_nothing_else() {
    replay(&AMAZON, true);
}

/// With the guard's own limits and hold-down, entries may stay longer, and a document may be held; no
/// prefix that two documents in turn have is ever lost.
#[test]
fn default_guard_loses_no_common_prefix_over_the_history() {
    let Some(directory) = data::ip_ranges_dir() else {
        return;
    };
    let cloud = vpc();
    let mut writer = writer(&cloud, &ONE_REGION, "", "");
    let mut replay = Replay::open(&directory);
    let (mut before, mut held, mut seen) = (BTreeSet::new(), 0, 0);
    while replay.advance_to_change(ONE_REGION.wanted) {
        let now = aggregate(&replay.selected(ONE_REGION.wanted));
        writer.publish(&String::from_utf8(replay.document()).unwrap());
        let report = run(writer.pass());
        held += usize::from(report.outcome == Outcome::Held);
        let list = list(&cloud, "ipv4").unwrap();
        let versions = cloud.versions(&list);
        let keep = common(&before, &now);
        for version in &versions[seen..] {
            for prefix in keep.iter().filter(|it| matches!(it, IpNet::V4(_))) {
                let place = replay.number();
                assert!(
                    covered(prefix, &version.prefixes),
                    "version {place} lost {prefix}: {report:?}"
                );
            }
        }
        (before, seen) = (now, versions.len());
    }
    println!("{seen} versions of the list, {held} documents held");
    assert!(seen > 1);
}
