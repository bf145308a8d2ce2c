//! Replay of the documents from 2017 to 2023 in `mode = "routes"`: the routes after each version, the
//! addresses of two versions in turn after each call, and the routes of others.

use std::collections::{BTreeMap, BTreeSet};

use cloud::Cloud;
use ipnet::IpNet;
use lab::data;
use lab::replay::Replay;

use crate::history::*;
use crate::world::*;

const MODE: &str = "mode = \"routes\"\n";
const VGW: &str = "vgw-0aaaaaaaaaaaaaaa1";

/// The target of a prefix of ours.
fn target(prefix: &IpNet) -> &'static str {
    match prefix {
        IpNet::V4(_) => IGW,
        IpNet::V6(_) => EIGW,
    }
}

/// Puts routes and a tag of somebody else into the table. Some routes lead to our targets; one of them
/// leads to a prefix that the selection has for a while.
fn add_foreign(cloud: &Cloud, passing: Option<IpNet>) {
    for (destination, to) in [
        ("198.51.100.0/24", NAT),
        ("203.0.113.0/24", IGW),
        ("2001:db8::/32", EIGW),
    ] {
        cloud.set_route(TABLE, destination, to);
    }
    if let Some(passing) = passing {
        cloud.set_route(TABLE, &passing.to_string(), target(&passing));
    }
    cloud.propagate_route(TABLE, "192.0.2.0/24", VGW);
    cloud.set_tag(TABLE, "Name", "public");
}

/// The first prefix that a later version of the selection doesn't have.
fn passing(directory: &std::path::Path, selection: &Selection) -> Option<IpNet> {
    let mut replay = Replay::open(directory);
    let mut before = BTreeSet::new();
    while advance(&mut replay, selection, false) {
        let now = wanted(&replay, selection);
        if let Some(gone) = before.difference(&now).next() {
            return Some(*gone);
        }
        before = now;
    }
    None
}

/// A table under replay.
struct Table {
    cloud: Cloud,
    /// The routes of others, in EC2's order.
    foreign: Vec<(String, String)>,
    destinations: BTreeSet<IpNet>,
    /// The prefixes of the last version.
    before: BTreeSet<IpNet>,
    changes: usize,
}

impl Table {
    fn new(cloud: &Cloud) -> Table {
        let foreign = cloud.routes(TABLE);
        let destinations = foreign.iter().filter_map(|(it, _)| it.parse().ok());
        Table {
            cloud: cloud.clone(),
            destinations: destinations.collect(),
            foreign,
            before: BTreeSet::new(),
            changes: 0,
        }
    }

    /// Watches each address that two versions in turn have.
    fn expect(&self, wanted: &BTreeSet<IpNet>) {
        self.cloud.unwatch();
        self.cloud.clear_calls();
        let keep = common(&self.before, wanted);
        for ipv4 in [true, false] {
            let of_family = keep.iter().filter(|it| matches!(it, IpNet::V4(_)) == ipv4);
            let ends = of_family.flat_map(|it| [it.network(), it.broadcast()]);
            let to = if ipv4 { IGW } else { EIGW };
            self.cloud.watch(TABLE, ends, to);
        }
    }

    /// The faults after a pass for these prefixes.
    fn faults(&mut self, wanted: BTreeSet<IpNet>) -> Vec<String> {
        let mut faults: Vec<String> = Vec::new();
        let strayed = self.cloud.strayed();
        faults.extend(strayed.iter().map(|it| format!("left the bypass: {it:?}")));
        let routes = self.cloud.routes(TABLE);
        let is_foreign = |(destination, _): &&(String, String)| {
            let prefix = destination.parse();
            prefix.is_ok_and(|prefix: IpNet| self.destinations.contains(&prefix))
        };
        let foreign: Vec<_> = routes.iter().filter(is_foreign).cloned().collect();
        if foreign != self.foreign {
            faults.push(format!("foreign: {:?}, now {foreign:?}", self.foreign));
        }
        let tag = self.cloud.tags(TABLE);
        if tag.get("Name").map(String::as_str) != Some("public") {
            faults.push(format!("tags: {tag:?}"));
        }
        let ours: BTreeMap<String, String> = routes
            .into_iter()
            .filter(|route| !is_foreign(&route))
            .collect();
        let own = |set: &BTreeSet<IpNet>| &set.clone() - &self.destinations;
        let oracle = own(&wanted);
        let oracle: BTreeMap<String, String> = oracle
            .iter()
            .map(|prefix| (prefix.to_string(), target(prefix).to_owned()))
            .collect();
        if ours != oracle {
            faults.push(format!("routes {ours:?}, not {oracle:?}"));
        }
        // Each change is one call: no route came and went.
        let calls = self.cloud.calls().into_iter();
        let calls = calls.filter(|call| call.action.ends_with("Route"));
        let calls = calls.count();
        let least = own(&self.before)
            .symmetric_difference(&own(&wanted))
            .count();
        if calls != least {
            faults.push(format!("{calls} calls for {least} changes"));
        }
        self.changes += calls;
        self.before = wanted;
        faults
    }
}

/// A document without any prefix of a family is held, by design: the routes of the family stay.
fn in_force(before: &BTreeSet<IpNet>, document: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut wanted = BTreeSet::new();
    for ipv4 in [true, false] {
        let new = of_family(document, ipv4);
        wanted.append(&mut if new.is_empty() {
            of_family(before, ipv4)
        } else {
            new
        });
    }
    wanted
}

/// Plays the documents with another selection than the one before, or all of them.
fn replay(selection: &Selection, all: bool) {
    let Some(directory) = data::ip_ranges_dir() else {
        return;
    };
    let cloud = roomy(selection);
    let passing = passing(&directory, selection);
    add_foreign(&cloud, passing);
    let mut table = Table::new(&cloud);
    let mut writer = writer(&cloud, selection, OPEN, MODE);
    let mut replay = Replay::open(&directory);
    let mut documents = 0;
    while advance(&mut replay, selection, all) {
        let document = wanted(&replay, selection);
        if document.is_empty() {
            continue;
        }
        let wanted = in_force(&table.before, &document);
        table.expect(&wanted);
        let (report, place) = pass_over(&mut writer, &replay, selection);
        let faults = table.faults(wanted);
        assert!(faults.is_empty(), "{place}: {faults:?}\n{report:?}");
        documents += 1;
    }
    assert_eq!(cloud.violations(), Vec::<String>::new());
    println!(
        "{} in routes: {documents} documents, {} routes changed, a foreign route to {passing:?}",
        selection.name, table.changes
    );
    let enough = documents > 10 && table.changes > documents / 50;
    assert!(enough, "{documents} {}", table.changes);
}

#[test]
fn each_change_of_one_regions_storage_reaches_the_routes_and_nothing_else() {
    replay(&ONE_REGION, false);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_one_regions_storage_reaches_the_routes_and_nothing_else() {
    replay(&ONE_REGION, true);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_all_storage_reaches_the_routes_and_nothing_else() {
    replay(&ALL_REGIONS, true);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn each_document_of_one_regions_services_reaches_the_routes_and_nothing_else() {
    replay(&AMAZON, true);
}

/// The checks of the replay see each fault: an address that leaves the bypass during a pass, and a
/// foreign route or tag that changes.
#[test]
fn replay_sees_lost_addresses_and_changed_foreign_routes() {
    let first: BTreeSet<IpNet> = many(20, 10).into_iter().collect();
    let second: BTreeSet<IpNet> = many(22, 12).into_iter().skip(2).collect();
    type Sabotage = fn(&Cloud);
    let cases: [(&str, Sabotage); 5] = [
        ("", |_| {}),
        ("left the bypass", |cloud| {
            cloud.drop_route(TABLE, "52.0.10.0/24");
            cloud.set_route(TABLE, "52.0.10.0/24", IGW);
        }),
        ("left the bypass", |cloud| {
            cloud.set_route(TABLE, "2600:1f60:4::/64", NAT);
        }),
        ("foreign", |cloud| {
            cloud.set_route(TABLE, "203.0.113.0/24", NAT);
        }),
        ("tags", |cloud| cloud.set_tag(TABLE, "Name", "mine")),
    ];
    for (word, sabotage) in cases {
        let cloud = roomy(&ONE_REGION);
        add_foreign(&cloud, None);
        let mut table = Table::new(&cloud);
        let mut writer = Writer::new(&cloud, MODE);
        let prefixes = |set: &BTreeSet<IpNet>| set.iter().copied().collect::<Vec<_>>();
        for (token, wanted) in [(1, &first), (2, &second)] {
            table.expect(wanted);
            writer.publish(&document_of(1_700_000_000 + token, &prefixes(wanted)));
            if token == 2 {
                cloud.before_call(move |cloud, _, request| {
                    if request.action == "DeleteRoute" {
                        sabotage(cloud);
                    }
                });
            }
            run(writer.pass());
            let faults = table.faults(wanted.clone());
            let seen = faults.iter().any(|fault| fault.starts_with(word));
            let expected = token == 2 && !word.is_empty();
            assert_eq!(seen, expected, "{word} {token}: {faults:?}");
        }
    }
}
